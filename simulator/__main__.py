"""``python -m simulator`` and ``ballast-sim``."""

import sys

from simulator.cli import main as run


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 bad input."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
