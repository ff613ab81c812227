#!/usr/bin/env bash
# Try the commit at HEAD on every supported Python, or on those named: tests/pythons.sh 3.14 3.15
#
# A Python of this machine is used where there is one, on PATH or in pyenv's folder. The newest come
# from Debian's sid, which debootstrap installs once into .pythons/sid. That needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

# What was given to the make that runs this is not for those that it runs.
unset MAKEFLAGS MFLAGS ARGS PYTHON VENV

all=(3.11 3.12 3.13 3.14 3.15)
in_sid=(3.14 3.15)
hops="tests/telemetry/celery/test_hops.py tests/telemetry/celery/test_endings.py"
work=$PWD/.pythons
sid=$work/sid

# Print the path of Python $1 on this machine, or fail.
installed() {
    local python
    for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python3; do
        if "$python" -c "" 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

# Install sid from the mirror and through the proxy of this machine's apt.
make_sid() {
    [[ -e $sid/.installed ]] && return
    local mirror
    mirror=$(apt-get indextargets --format "\$(REPO_URI)" "Created-By: Packages" "Label: Debian" \
        2>/dev/null | head -n 1) || true
    eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy \
        2>/dev/null)"
    export http_proxy https_proxy
    echo "installing Debian's sid into $sid, once"
    rm -rf --one-file-system "$sid"
    mkdir -p "$sid"
    unshare --mount debootstrap --variant=minbase \
        --include="ca-certificates,make$(printf ',python%s-venv' "${in_sid[@]}")" \
        sid "$sid" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 || {
        tail -n 5 "$work/debootstrap.log" >&2
        return 1
    }
    touch "$sid/.installed"
}

# Give sid this machine's name servers, certificates and pip settings, under the same paths.
configure_sid() {
    local file
    for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf \
        "$HOME/.pip/pip.conf" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" \
        "${PIP_CONFIG_FILE:-}" "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
        if [[ -f $file ]]; then
            mkdir -p "$sid${file%/*}"
            cp --remove-destination --dereference "$file" "$sid$file"
        fi
    done
}

# Run a command in sid. The mounts are its own and end with it.
# shellcheck disable=SC2329  # `try` calls it
inside() {
    # shellcheck disable=SC2016  # the inner shell expands them
    PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin unshare --mount sh -c '
        mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"
    ' "$sid" "$@"
}

# Make the folder $1 a clean checkout of HEAD.
check_out() {
    rm -rf --one-file-system "$1"
    mkdir -p "$1"
    git archive HEAD | tar -x -C "$1"
}

summary=()
failed=0

# Run each step on Python $1: its interpreter is $2, the command before make is the rest.
try() {
    local version=$1 python=$2 results="" step
    shift 2
    for step in demo quick hops; do
        local targets=("$step") log=$work/$version-$step.log
        [[ $step = hops ]] && targets=(test ARGS="$hops")
        echo "Python $version: make ${targets[*]}"
        if "$@" "${targets[@]}" PYTHON="$python" </dev/null >"$log" 2>&1; then
            results+=$(printf "%-8s" ok)
        else
            results+=$(printf "%-8s" FAILED)
            failed=1
            tail -n 5 "$log"
            echo "all of it: $log"
        fi
    done
    summary+=("$(printf "%-8s" "$version")$results")
}

(($#)) || set -- "${all[@]}"
mkdir -p "$work"
git diff --quiet HEAD || echo "changes that are not committed are left out"
for version; do
    folder=/src/$version
    if python=$(installed "$version"); then
        check_out "$work$folder"
        try "$version" "$python" make -C "$work$folder"
    elif [[ " ${in_sid[*]} " != *" $version "* ]]; then
        summary+=("$(printf "%-8s" "$version")not installed here: not tried")
    elif ! command -v debootstrap >/dev/null || ((EUID)); then
        summary+=("$(printf "%-8s" "$version")not installed here, and no debootstrap as root: not tried")
    elif make_sid; then
        configure_sid
        check_out "$sid$folder"
        try "$version" "python$version" inside make -C "$folder"
    else
        summary+=("$(printf "%-8s" "$version")debootstrap FAILED: $work/debootstrap.log")
        failed=1
    fi
done

printf "\nPython  demo    quick   hops\n"
printf "%s\n" "${summary[@]}"
exit "$failed"
