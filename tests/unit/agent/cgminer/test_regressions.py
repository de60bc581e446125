"""What a fuzzer once found stays found: each kept input is tried again, in every dialect where it is a reply."""

import json
from pathlib import Path

import pytest

from tests.fuzz.by_structure import AIMS, read_poll
from tests.fuzz.targets import DIALECTS, TARGETS

pytestmark = pytest.mark.agent

KEPT = sorted(Path(__file__).with_name("regressions").glob("*.bin"))


def again(target: str, content: bytes) -> None:
    """Try a kept input. One that begins with a dialect's place is tried at every place, for places shift."""
    if target == "poll":
        dialect, replies = json.loads(content)
        read_poll((dialect, {name: reply.encode("latin-1") for name, reply in replies.items()}))
    elif target in ("parse", "replies"):
        for place in range(len(DIALECTS)):
            TARGETS[target](bytes([place]) + content[1:])
    else:
        TARGETS[target](content)


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_a_kept_input_raises_no_more(path: Path) -> None:
    again(path.stem.rpartition("-")[0], path.read_bytes())


@pytest.mark.parametrize("target", sorted({*TARGETS, *AIMS}))
def test_every_target_can_be_tried_again(target: str) -> None:
    again(target, b'["luxos",{"summary":"{}"}]')
