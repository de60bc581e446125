#!/usr/bin/env bash
# Runs the named benches, or all there are: `bench.sh --quick [NAME]`, or `bench.sh "" [NAME]` at full size.
# Progress goes to stderr, one JSON line a bench to stdout. A bench that itself fails does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.."
flag=$1
shift
names=("$@")
if [ ${#names[@]} = 0 ]; then
  for file in tests/bench/[a-z]*.py; do
    grep -q 'finish("' "$file" && names+=("$(basename "$file" .py)")
  done
fi
[ ${#names[@]} = 0 ] && { echo "bench: there is no bench in tests/bench" >&2; exit 1; }
failed=()
for name in "${names[@]}"; do
  echo "bench: $name" >&2
  .venv/bin/python -m "tests.bench.$name" $flag | tail -n 1 || failed+=("$name")
done
[ ${#failed[@]} = 0 ] || { echo "bench: did not work: ${failed[*]}" >&2; exit 1; }
