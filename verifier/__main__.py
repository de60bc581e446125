"""``python -m verifier BUNDLE.json``: recomputes an invoice and says whether it holds.

Exit code 0 when every figure is what the evidence gives, 1 on any difference, 2 when the bundle cannot be read.
"""

import json
import sys
from pathlib import Path

from verifier.rating import BadBundle, Result, check_bundle


def main(arguments: list[str]) -> int:
    """Check the bundle named in ``arguments`` and return the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m verifier BUNDLE.json", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        bundle = json.loads(path.read_bytes())
        if not isinstance(bundle, dict):
            raise BadBundle("the file holds no JSON object")
        result = check_bundle(bundle)
    except (OSError, ValueError, RecursionError, BadBundle) as error:
        print(f"{path}: {error}; ask for the bundle again", file=sys.stderr)
        return 2
    print("\n".join(report(result)))
    return 1 if result.differences else 0


def report(result: Result) -> list[str]:
    """Return the recomputation as lines of text."""
    lines = [f"invoice {result.number}"]
    for line in result.lines:
        lines += [
            f"  line {line.place}: {line.description}",
            f"    {line.intervals} intervals, {line.estimated} of them estimated, {line.quantity_kwh} kWh",
            f"    x {line.rate} {result.currency}/kWh = {line.computed} {result.currency} (stated {line.stated})",
        ]
    lines.append(f"  total {result.computed_total} {result.currency} (stated {result.stated_total})")
    lines += [f"  DIFFERENCE {item}" for item in result.differences]
    lines.append("differs from its evidence" if result.differences else "recomputed to the cent")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
