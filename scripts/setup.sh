#!/usr/bin/env bash
# Makes .venv from the hash-pinned requirement files: `setup.sh demo` for running, `setup.sh test` for everything.
# A stamp keyed by all inputs makes a second run do nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
level=${1:?say demo or test}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

stop() { echo "setup: $*" >&2; exit 1; }

usable() { "$1" -c 'import sys, venv, sqlite3, ssl; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate fallback=""
  for candidate in python3.11 python3 /usr/bin/python3.11 /usr/bin/python3; do
    usable "$candidate" || continue
    if "$candidate" -c 'import ensurepip; ensurepip.version()' >/dev/null 2>&1; then echo "$candidate"; return; fi
    fallback=$candidate
  done
  [ -n "$fallback" ] || stop "no Python 3.11 or newer found; install python3.11 and run this again"
  [ "$(id -u)" = 0 ] || stop "Python's venv module is incomplete; run: sudo apt-get install python3-venv"
  { apt-get install -y -qq python3-venv || { apt-get update -qq && apt-get install -y -qq python3-venv; }; } >/dev/null 2>&1 \
    || stop "could not install python3-venv; run: apt-get update && apt-get install python3-venv"
  echo "$fallback"
}

key() {
  { echo "$PWD"; cat "requirements/$1.txt" pyproject.toml deploy/edge/pyproject.toml scripts/setup.sh; } | sha256sum | cut -c1-16
}

current() { [ "$(cat ".venv/.stamp-$1" 2>/dev/null)" = "$(key "$1")" ] && .venv/bin/python -c '' 2>/dev/null; }

current "$level" && exit 0
[ "$level" = demo ] && current test && exit 0

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  rm -rf .venv
  "$python" -m venv .venv >/dev/null 2>&1 || stop "could not make .venv with $python"
fi
rm -f ".venv/.stamp-$level"
echo "setup: installing requirements/$level.txt into .venv (about half a minute)" >&2
.venv/bin/python -m pip install -qq --require-hashes -r "requirements/$level.txt" \
  || stop "pip could not install requirements/$level.txt; see its message above"
.venv/bin/python -m pip install -qq --no-deps --no-build-isolation -e deploy/edge -e . \
  || stop "pip could not install the two packages of this repository; see its message above"
key "$level" > ".venv/.stamp-$level"
