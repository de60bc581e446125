"""``python -m cloud`` and the console script ``ballast``."""

import sys

from cloud.cli.main import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
