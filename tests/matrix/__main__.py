"""Write docs/control-matrix.md: `python -m tests.matrix --write`; without, print it."""

import argparse
import asyncio

from tests.architecture.source import REPOSITORY
from tests.matrix.cells import firmwares
from tests.matrix.page import page, play_all

PAGE = REPOSITORY / "docs/control-matrix.md"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="tests.matrix", description=__doc__)
    arguments.add_argument("--write", action="store_true", help="write the page instead of printing it")
    asked = arguments.parse_args()
    text = page(asyncio.run(play_all(firmwares())))
    if asked.write:
        PAGE.write_text(text, "utf-8")
        print(f"wrote {PAGE.relative_to(REPOSITORY)}")
    else:
        print(text)


if __name__ == "__main__":
    main()
