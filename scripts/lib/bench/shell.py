"""Child processes, small files, and the reasons for giving up."""

import subprocess
import sys
import time
from pathlib import Path


class Stop(Exception):
    """The bench cannot go on; the text says why."""


def say(text):
    """Progress, on standard error."""
    print(f"bench    {text}", file=sys.stderr, flush=True)


def run(*command, env=None, stdin=None, check=True, timeout=600):
    """Runs a command and gives its standard output as text."""
    words = [str(word) for word in command]
    done = subprocess.run(words, env=env, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise Stop(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def succeeds(*command, env=None, stdin=None, timeout=60):
    """Whether a command ends well."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=env, input=stdin, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def until(what, look, seconds=300, pause=0.15):
    """Repeats `look` until it gives something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(pause)
    raise Stop(f"{what}: not within {seconds} s")


def high_water(process):
    """Waits for a process and gives its own peak resident memory in KiB; children are not counted."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        try:
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    return peak
