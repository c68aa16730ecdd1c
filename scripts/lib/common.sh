# shellcheck shell=bash
# Sourced by the scripts beside it: messages, consent, tools that must be there.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}
# Outside the checkout, so that a fresh clone finds its dependencies built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/devstack-dev/target}
script=$(basename -- "$0")
yes=${CI:+1}

say() { printf '%-8s %s\n' "$script" "$*"; }
fail() { # CODE CAUSE [CURE]
    printf '✗ %s  %s\n' "$script" "$2" >&2
    if [[ -n ${3:-} ]]; then printf '  cure    %s\n' "$3" >&2; fi
    exit "$1"
}
have() { command -v "$1" >/dev/null 2>&1; }

# Prints the comment at the head of a script as its help.
help_of() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$1"; }

agree() { # QUESTION
    [[ -n $yes ]] && return 0
    [[ -t 0 && -t 2 ]] || fail 5 "$1: not without your consent" "run again with --yes"
    local reply
    read -r -p "$1? [y/N] " reply
    [[ $reply == [yY]* ]] || fail 5 'declined, nothing changed'
}

# Runs a command as root: sudo where this account is not root; fails where it cannot.
as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else
        have sudo || return 1
        if [[ -t 0 ]]; then sudo -- "$@"; else sudo -n -- "$@"; fi
    fi
}

# Installs Debian packages. Returns 1 where that cannot be done here.
apt_install() { # PACKAGE...
    have apt-get || return 1
    as_root apt-get -o DPkg::Lock::Timeout=120 -q -y update >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -q -y install \
        --no-install-recommends "$@" >/dev/null 2>&1 </dev/null
}

# Where the installers of Rust and Go put them, for accounts whose PATH does not have it.
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin
need_rust() {
    have cargo && return 0
    fail 1 'cargo is missing: devstack is built with Rust' \
        'install Rust from https://rustup.rs (or: apt-get install rustup && rustup default stable), then run again'
}

# Where the release build of devstack is put.
release_binary() { echo "$CARGO_TARGET_DIR/release/devstack"; }

# Cargo goes by times: what another checkout left in a shared target directory may be newer than this one's sources
# and not made of them. It goes; the dependencies stay.
own_target() {
    local mark=$CARGO_TARGET_DIR/checkout
    if [[ -f $mark && $(<"$mark") == "$root" ]]; then return 0; fi
    (cd -- "$root" && cargo clean --quiet --package devstack && cargo clean --quiet --release --package devstack)
    mkdir -p -- "$CARGO_TARGET_DIR"
    echo "$root" >"$mark"
}

build_release() { own_target && (cd -- "$root" && cargo build --release --locked); }
