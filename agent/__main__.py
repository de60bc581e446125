"""``python -m agent`` and the console script ``ballast-agent``."""

import sys
from typing import NoReturn

from agent.cli import main as run_command


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    sys.exit(run_command())


if __name__ == "__main__":
    main()
