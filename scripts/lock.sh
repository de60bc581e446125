#!/usr/bin/env bash
# Rewrites requirements/*.txt from *.in: every version exact, every file by hash, no index address in any of them.
# Extras stay in the pins: an older pip takes the newest version for "name[extra]" when only "name" is pinned, and then refuses it.
set -euo pipefail
cd "$(dirname "$0")/.."
UV_VERSION=0.13.9
tool=.cache/lock
[ -x "$tool/bin/uv" ] || { .venv/bin/python -m venv "$tool"; "$tool/bin/pip" install --quiet "uv==$UV_VERSION"; }
cd requirements
for name in agent agent-mqtt demo test agent-test; do
  "../$tool/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --upgrade \
    --no-emit-index-url --no-annotate --no-header --output-file "$name.txt" "$name.in"
done
