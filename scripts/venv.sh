#!/usr/bin/env bash
# venv.sh FOLDER EXTRA: create a virtual environment with an editable Surgecast and one extra.
set -euo pipefail
folder=$1 extra=$2

fail() { echo "surgecast: $*" >&2; exit 1; }

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
    echo "installing $* (Debian)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
        >/dev/null || fail "apt-get could not install $*"
}

find_python() {  # oldest first, since PyTorch may have no wheels for the newest Python
    local name
    for name in python3.11 python3.12 python3.13 python3; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then command -v "$name"; return; fi
    done
    return 1
}

if [ ! -x "$folder/bin/pip" ]; then
    python=$(find_python) || {
        can_apt || fail "needs Python 3.11 or newer; install one (Debian 12: apt-get install python3 python3-venv)"
        apt_install python3 python3-venv
        python=$(find_python) || fail "needs Python 3.11 or newer, but this Debian has none"
    }
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        can_apt || fail "$python has no venv module; install it (Debian: apt-get install $package)"
        apt_install "$package"
    fi
    rm -rf "$folder"
    "$python" -m venv "$folder"
fi

echo "installing Surgecast into $folder (takes minutes the first time: PyTorch is large)"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-input --progress-bar off \
    --retries 5 --timeout 60 --editable ".[$extra]" \
    || fail "pip could not install the packages; see its messages above"
