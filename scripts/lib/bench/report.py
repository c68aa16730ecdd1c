"""The machine's facts, medians, and docs/benchmarks.md."""

import datetime
import os
import platform
import statistics
from pathlib import Path

from .shell import run

GOALS = {"hand": 0.55, "expert": 1.0, "no-op": 1.5, "help": 15, "rss": 60, "size": 16, "down": 10}


def machine():
    """What the figures were measured on."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")).split()[1])
    engine = run("docker", "info", "--format", "{{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}, runtime {{.DefaultRuntime}}")
    return {
        "CPU": f"{os.cpu_count()} × {cpu}",
        "memory": f"{memory / 1048576:.0f} GiB",
        "kernel": platform.release(),
        "Docker": engine.strip(),
        "measured": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def load():
    """The load average of the last minute."""
    return os.getloadavg()[0]


def median(values):
    """The median of what is there."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(rounds, way):
    """The median over the rounds of devstack's time by another way's time of the same round."""
    return median([one["devstack"] / one[way] for one in rounds if one.get("devstack") and one.get(way)])


def number(value, unit="", digits=1):
    """A figure, or what stands for none."""
    return "not measured" if value is None else f"{value:.{digits}f}{unit}"


def verdict(value, goal):
    """Whether a figure is as good as it has to be."""
    return "" if value is None else ("yes" if value <= goal else "**no**")


def by_nodes(rounds):
    """Rounds by their number of nodes."""
    found = {}
    for one in rounds:
        found.setdefault(one["nodes"], []).append(one)
    return sorted(found.items())


def ratios(data):
    """The lines of the table of ratios."""
    lines = ["| nodes | rounds | by hand | expert | devstack | devstack / by hand | devstack / expert |", "|---|---|---|---|---|---|---|"]
    for nodes, rounds in by_nodes(data["rounds"]):
        times = [number(median([one.get(way) for one in rounds]), " s") for way in ("hand", "expert", "devstack")]
        shares = [number(ratio(rounds, way), digits=2) for way in ("hand", "expert")]
        lines.append(f"| {nodes} | {len(rounds)} | {' | '.join(times)} | {shares[0]} | {shares[1]} |")
    return lines


def every_round(data):
    """The lines of the table of rounds."""
    lines = ["| nodes | round | load before | by hand | expert | devstack | down |", "|---|---|---|---|---|---|---|"]
    for nodes, rounds in by_nodes(data["rounds"]):
        for index, one in enumerate(rounds, 1):
            times = [number(one.get(way)) for way in ("hand", "expert", "devstack", "down")]
            lines.append(f"| {nodes} | {index} | {number(one.get('load'))} | {' | '.join(times)} |")
    return lines


def counted(nodes):
    """A number of nodes in words."""
    return f"{nodes} node{'s' if nodes > 1 else ''}"


def phases(data):
    """The lines of the table of what the time goes to by hand."""
    lines = ["| by hand, until | " + " | ".join(counted(nodes) for nodes, _ in by_nodes(data["rounds"])) + " |"]
    lines.append("|---|" + "---|" * len(by_nodes(data["rounds"])))
    names = []
    for one in data["rounds"]:
        names.extend(name for name, _ in one.get("phases", []) if name not in names)
    for name in names:
        cells = []
        for _, rounds in by_nodes(data["rounds"]):
            cells.append(number(median([dict(one.get("phases", [])).get(name) for one in rounds]), " s"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def figures(data):
    """The lines of the table of single figures."""
    rows = []
    for nodes, rounds in by_nodes(data["rounds"]):
        for name, way, goal in (("by hand", "hand", "0.55"), ("expert's script", "expert", "1.0")):
            share = ratio(rounds, way)
            rows.append((f"URL ready, {name} = 1, {counted(nodes)}", number(share, digits=2), f"≤ {goal}", verdict(share, GOALS[way])))
        no_op, apply = (median([time for one in rounds for time in one.get(name, [])]) for name in ("noop", "apply"))
        rows.append((f"`up` again, every endpoint verified, {counted(nodes)}", number(no_op, " s", 2), "≤ 1.5 s", verdict(no_op, GOALS["no-op"])))
        rows.append((f"`kubectl apply` of the same, again, {counted(nodes)}", number(apply, " s", 2), "", ""))
    rows += [
        ("`down`, leftovers verified", number(median([one.get("down") for one in data["rounds"]]), " s"), "≤ 10 s", verdict(median([one.get("down") for one in data["rounds"]]), GOALS["down"])),
        ("`--help`", number(data["help"], " ms"), "≤ 15 ms", verdict(data["help"], GOALS["help"])),
        ("peak resident memory of `up`", number(data["rss"], " MiB"), "≤ 60 MiB", verdict(data["rss"], GOALS["rss"])),
        ("release binary", number(data["size"], " MiB"), "≤ 16 MiB", verdict(data["size"], GOALS["size"])),
        ("baking the expert's node image, not counted above", number(data["bake"], " s"), "", ""),
        ("everything from empty caches to the URL, once", number(data.get("bare"), " s", 0), "≤ 2100 s", verdict(data.get("bare"), 2100)),
    ]
    return ["| figure | measured | goal | reached |", "|---|---|---|---|", *[f"| {' | '.join(row)} |" for row in rows]]


TEXT = """# Benchmarks

Written by `scripts/bench`; run it to get the figures of your own machine.

Three ways to the same site, taken in turn, from nothing until the loopback URL *and* the LoadBalancer address answer
200 with the right SHA-256. All three use the same node image, the same six workload images, the same manifests (those
that devstack applied, read back from its cluster) and the same GIF in the same private bucket.

- **by hand**: `kind create cluster --wait`, `kind load` of one image after the other, then MetalLB, Traefik, MinIO with
  its jobs and the upload, s3www, each applied and waited for before the next.
- **expert**: a parallel script. The workload images are baked into the node image beforehand (not counted), everything
  is applied at once as soon as the API server answers, with credentials from inside the node rather than kind's own at
  the end; MetalLB's memberlist secret and its pool are made early.
- **devstack**: `devstack up`, images in its store, none in the nodes; obtaining images is not counted, loading them is.

A ratio is the median of the ratios within each round.

## Machine

{machine}
{remark}
## Until the URL answers

{ratios}

{phases}

## Figures

{figures}

## Every round

Seconds. The load average is that of the minute before.

{rounds}
"""


def write(data, path, remark=""):
    """Writes the page."""
    facts = "\n".join(f"- {name}: {value}" for name, value in data["machine"].items())
    parts = {"ratios": ratios(data), "phases": phases(data), "figures": figures(data), "rounds": every_round(data)}
    text = TEXT.format(machine=facts, remark=f"\n{remark}\n" if remark else "", **{name: "\n".join(lines) for name, lines in parts.items()})
    path.write_text(text)
