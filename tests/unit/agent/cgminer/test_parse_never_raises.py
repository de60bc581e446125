"""Whatever a device sends, parsing it ends in an observation that claims no more than the replies say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.replies import parse
from sitelink.types import MinerState
from tests.fuzz import structures
from tests.fuzz.damage import ODD_VALUES, paths, replaced
from tests.fuzz.samples import SAMPLES
from tests.fuzz.targets import COMMANDS, DIALECTS, TARGETS, check

pytestmark = pytest.mark.agent

CASES = [(dialect, command) for dialect in sorted(SAMPLES) for command in sorted(SAMPLES[dialect])]


@given(st.sampled_from(DIALECTS), st.binary(max_size=300))
def test_arbitrary_bytes(dialect: str, reply: bytes) -> None:
    check(parse(dialect, dict.fromkeys(COMMANDS[dialect], reply)))


@given(structures.polls())
def test_damaged_polls(poll: tuple[str, dict[str, bytes]]) -> None:
    check(parse(*poll))


@pytest.mark.parametrize(("dialect", "command"), CASES)
def test_every_single_value_in_every_odd_form(dialect: str, command: str) -> None:
    document = json.loads(SAMPLES[dialect][command])
    for path in paths(document):
        for value in ODD_VALUES:
            damaged = json.dumps(replaced(document, path, value)).encode()
            check(parse(dialect, {**SAMPLES[dialect], command: damaged}))


@given(structures.web_pages)
def test_damaged_web_pages(page: bytes) -> None:
    TARGETS["web"](page)


@given(structures.frames)
def test_damaged_frames(frame: bytes) -> None:
    TARGETS["framed"](frame)


@given(structures.challenges)
def test_damaged_challenges(challenge: bytes) -> None:
    TARGETS["challenge"](challenge)


@given(structures.texts)
def test_the_plain_text_form(text: bytes) -> None:
    TARGETS["text"](text)


@pytest.mark.parametrize(
    "figure", ["", " ", "nan", "-inf", "1e999", "0x10", "1_000", "\u0663", "12 GH", None, True, [1], -5]
)
def test_what_no_miner_writes_as_a_number_is_unknown(figure: object) -> None:
    reply = json.dumps({"SUMMARY": [{"Elapsed": 60, "GHS 5s": figure}]}).encode()
    seen = parse("luxos", {"summary": reply})
    assert (seen.hashrate_ths, seen.state) == (None, MinerState.UNKNOWN)
