"""The fuzzer that knows the shape of replies: Hypothesis, run for a time instead of a number of examples.

``python -m tests.fuzz.by_structure SECONDS SEED FOLDER`` ends with one JSON line: inputs tried, and what raised. The
smallest input that raises is written to ``FOLDER/TARGET``, as bytes for that target or, for a poll, as JSON.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from agent.cgminer.replies import parse
from tests.fuzz import structures
from tests.fuzz.targets import TARGETS, check

_ROUND: Final = 150
_MOST: Final = ("poll",) * 12
"""Most rounds go where most is read: the tables."""


def read_poll(poll: tuple[str, dict[str, bytes]]) -> None:
    """Read one poll's replies and check what is claimed."""
    check(parse(*poll))


AIMS: Final[dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]]] = {
    "poll": (structures.polls(), read_poll),
    "decode": (st.binary(max_size=300), TARGETS["decode"]),
    "text": (structures.texts, TARGETS["text"]),
    "identify": (
        st.sampled_from([*structures.SAMPLES["luxos"].values()]).flatmap(structures.replies),
        TARGETS["identify"],
    ),
    "challenge": (structures.challenges, TARGETS["challenge"]),
    "web": (structures.web_pages, TARGETS["web"]),
    "framed": (structures.frames, TARGETS["framed"]),
}


class Round:
    """One run of Hypothesis over one aim; ``last`` is the input tried last, which is the smallest when it raised."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.tried = 0
        self.last: Any = None
        strategy, aim = AIMS[name]

        @seed(number)
        @settings(
            max_examples=_ROUND,
            deadline=None,
            database=None,
            derandomize=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(value: Any) -> None:
            self.tried += 1
            self.last = value
            aim(value)

        self.run = run


def written(value: Any) -> bytes:
    """Return a failing input as the bytes of a file."""
    if isinstance(value, bytes):
        return value
    dialect, replies = value
    return json.dumps([dialect, {name: reply.decode("latin-1") for name, reply in replies.items()}]).encode()


def main(seconds: float, number: int, folder: Path) -> int:
    """Run all aims in turn until the time is up."""
    ends_at = time.monotonic() + seconds
    tried = 0
    raised: dict[str, str] = {}
    while time.monotonic() < ends_at:
        for name in (*_MOST, *AIMS):
            if name in raised or time.monotonic() >= ends_at:
                continue
            number += 1
            one = Round(name, number)
            try:
                one.run()
            except Exception:  # noqa: BLE001 - what the fuzzer is for
                raised[name] = traceback.format_exc()
                (folder / name).write_bytes(written(one.last))
                print(raised[name], file=sys.stderr)
            tried += one.tried
    print(json.dumps({"inputs": tried, "raised": sorted(raised)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
