"""A glance, and the asking of a name, leave out only what does not change their answer."""

from pathlib import Path

import pytest

from agent.cgminer.dialects import TABLES
from agent.cgminer.observation import Observation
from agent.cgminer.replies import interpret, named, read_sections
from sitelink.types import MinerState
from tests.bench import parse as bench
from tests.fuzz.samples import SAMPLES
from tests.unit.agent.cgminer.test_stale import STOPPED

pytestmark = pytest.mark.agent

SHARED = ("state", "reason", "hashrate_ths", "power_w", "power_source", "uptime_s")
CASES = [(dialect, replies) for told in (SAMPLES, STOPPED) for dialect, replies in told.items() if dialect in TABLES]


def shared(seen: Observation) -> dict[str, object]:
    return {name: getattr(seen, name) for name in SHARED}


@pytest.mark.parametrize(("dialect", "replies"), CASES, ids=[dialect for dialect, _ in CASES])
def test_a_glance_tells_what_a_look_at_the_same_replies_tells(dialect: str, replies: dict[str, bytes]) -> None:
    sections = read_sections(replies.items())
    look = interpret(dialect, sections)
    assert shared(interpret(dialect, sections, glance=True)) == shared(look)
    assert named(dialect, sections).identities == look.identities


def test_a_glance_tells_what_a_look_tells_of_every_captured_device(captures: Path) -> None:
    states = set()
    for case in bench.load(captures):
        for replies in case.devices:
            sections = read_sections(replies.items())
            look = interpret(case.dialect, sections)
            assert shared(interpret(case.dialect, sections, glance=True)) == shared(look), case.name
            assert named(case.dialect, sections).identities == look.identities, case.name
            states.add(look.state)
    assert {MinerState.HASHING, MinerState.IDLE} <= states
