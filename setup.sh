#!/bin/sh
# Everything that `make smoke` and `make test` need, on a fresh Debian 12, Debian 13 or Ubuntu 24.04:
#
#   1. system packages   packages/host.txt, only those that are missing, with apt
#   2. .venv             Python packages of requirements.lock, each checked by its hash
#   3. tinboot setup     mkosi, QEMU's version, locked packages, the tools tree (tinboot/cli/setup.py)
#
# Run it as often as you like: what is done is not done again, what was interrupted goes on. Package archives
# and the Python index are those that this machine is configured for.
set -eu
umask 022
unset PYTHONPATH PYTHONHOME
LC_ALL=C.UTF-8
export LC_ALL
cd "$(dirname "$0")"
here=$(pwd -P)

say() {
    printf 'setup: %s\n' "$*" >&2
}

fail() { # MESSAGE REMEDY
    printf 'setup: error: %s\nsetup: remedy: %s\n' "$1" "$2" >&2
    exit 6
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

# The lock's descriptor is closed for apt: services that a package starts would keep it.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
        apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >&2 9>&-
}

# --- one at a time -------------------------------------------------------------------------------------
[ "$(uname -sm)" = "Linux x86_64" ] || fail "this is $(uname -sm)" "use a Linux machine with an x86-64 CPU"
command -v apt-get dpkg-query >/dev/null || fail "this machine has no apt" "use Debian 12, Debian 13 or Ubuntu 24.04"
{ mkdir -p build && touch build/.setup.lock; } 2>/dev/null || fail "$here is not writable" "check its owner and the space left"
exec 9>build/.setup.lock
if ! flock -n 9; then
    say "waiting for another set-up of this checkout"
    flock 9
fi

# --- 1. system packages --------------------------------------------------------------------------------
wanted=$(sed -e 's/[[:space:]#].*//' -e '/^$/d' packages/host.txt)
# shellcheck disable=SC2086 # a list of words
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^installed //p')
missing=
for name in $wanted; do
    printf '%s\n' "$installed" | grep -qxF "$name" || missing="$missing $name"
done
if [ -n "$missing" ]; then
    by_hand="run as root: apt-get update && apt-get install --no-install-recommends$missing"
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null || fail "packages are missing and there is no sudo" "$by_hand"
    say "installing system packages:$missing"
    updated=no
    # shellcheck disable=SC2086
    if ! apt-get -qq -s --no-install-recommends install $missing >/dev/null 2>&1 9>&-; then
        apt_get update || fail "apt-get update failed" "see its message above, then: $by_hand"
        updated=yes
    fi
    # shellcheck disable=SC2086
    if ! apt_get --no-install-recommends install $missing; then
        # package lists from before the archive's last change name files that are gone
        [ $updated = no ] || fail "apt-get install failed" "see its message above, then: $by_hand"
        apt_get update || fail "apt-get update failed" "see its message above, then: $by_hand"
        apt_get --no-install-recommends install $missing || fail "apt-get install failed" "see above, then: $by_hand"
    fi
fi

# --- 2. Python -----------------------------------------------------------------------------------------
# The stamps are in .venv and written last, so an environment that is not whole is never taken for one. The
# checkout's path is in them since scripts in .venv hold it.
python=/usr/bin/python3
version=$($python -I -c 'import platform; print(platform.python_version())') ||
    fail "$python does not run" "apt-get install --reinstall python3 python3-minimal"
case $version in
    3.11.* | 3.12.* | 3.13.*) ;;
    *) fail "$python is Python $version; requirements.lock is for 3.11 to 3.13" "use Debian 12, Debian 13 or Ubuntu 24.04" ;;
esac
key=$(printf '%s\n' "$here" "$version" | cat - requirements.lock | sha256sum | cut -d ' ' -f 1)
own_key=$(printf '%s\n' "$key" | cat - pyproject.toml | sha256sum | cut -d ' ' -f 1)
stamp() { # NAME KEY
    printf '%s\n' "$2" >".venv/$1.new" && mv ".venv/$1.new" ".venv/$1"
}
stamped() { # NAME KEY
    [ "$(cat ".venv/$1" 2>/dev/null)" = "$2" ]
}
pip() {
    .venv/bin/python3 -I -m pip --disable-pip-version-check --no-input install --root-user-action=ignore "$@" >&2 9>&-
}

if ! stamped tinboot-lock "$key"; then
    # tools tree, locked packages and a handful of images, measured; and room for two builds at a time
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge 6 ] || fail "$free GiB are free in $here, 6 are needed" "make room, or clone onto another disk"
    say "installing Python packages into .venv (Python $version)"
    rm -rf .venv
    $python -I -m venv .venv >&2 || fail "no virtual environment" "apt-get install --reinstall python3-venv"
    pip --only-binary :all: --require-hashes -r requirements.lock ||
        fail "pip could not install requirements.lock" "see its message above; if it is the network, run this again"
    stamp tinboot-lock "$key"
fi
if ! stamped tinboot-own "$own_key"; then
    # offline: what builds it is in the lock
    pip --quiet --no-index --no-deps --no-build-isolation --editable . ||
        fail "pip could not install this checkout into .venv" "see its message above"
    stamp tinboot-own "$own_key"
fi

# --- 3. what images are built with ---------------------------------------------------------------------
.venv/bin/tinboot setup 9>&-
