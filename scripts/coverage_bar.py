"""Holds the pure modules to their bar: at least 95 % of lines and of branches, from coverage's JSON report.

Usage: coverage_bar.py REPORT.json. The list of modules is `include` under [tool.coverage.run] in pyproject.toml.
"""

import json
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BAR_PERCENT = 95.0


def percent(part: int, whole: int) -> float:
    """A share in percent; nothing to cover counts as covered."""
    return 100.0 * part / whole if whole else 100.0


def shortfalls(report: dict[str, dict[str, dict[str, dict[str, int]]]], modules: list[str]) -> list[str]:
    """Return one line for each module under the bar; a module no test imported is at zero."""
    lines = []
    for module in modules:
        if module not in report["files"]:
            lines.append(f"{module}: no test runs it")
            continue
        summary = report["files"][module]["summary"]
        statements = percent(summary["covered_lines"], summary["num_statements"])
        branches = percent(summary["covered_branches"], summary["num_branches"])
        if min(statements, branches) < BAR_PERCENT:
            lines.append(
                f"{module}: {statements:.1f} % of lines, {branches:.1f} % of branches; the bar is {BAR_PERCENT:.0f} %"
            )
    return lines


def main(report_path: str) -> int:
    """Print what falls short and return the exit code."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["coverage"]["run"]["include"]
    modules = sorted(str(path.relative_to(REPOSITORY)) for pattern in patterns for path in REPOSITORY.glob(pattern))
    short = shortfalls(json.loads(Path(report_path).read_text("utf-8")), modules)
    for line in short:
        print(f"coverage: {line}", file=sys.stderr)
    if not short:
        print(f"coverage: {len(modules)} pure modules at {BAR_PERCENT:.0f} % or more of lines and branches")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
