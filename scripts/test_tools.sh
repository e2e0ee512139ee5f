#!/usr/bin/env bash
# Installs the programs that the tests need besides Python packages (as root, on Debian).
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ -n "${KAFKA_HOME:-}" ] && ! command -v java >/dev/null; then missing+=(openjdk-17-jre-headless); fi
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "surgecast: the tests need ${missing[*]}; install" \
        "(Debian: sudo apt-get install ${missing[*]}), then run make test again" >&2
    exit 1
fi
echo "installing ${missing[*]} (Debian)"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
