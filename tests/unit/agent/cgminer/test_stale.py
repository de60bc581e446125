"""What was read an hour ago tells names and limits, never that a miner hashes or was stopped."""

import pytest

from agent.cgminer.dialects import TABLES
from agent.cgminer.repair import decode
from agent.cgminer.replies import interpret
from agent.cgminer.sections import Sections
from agent.errors import Garbled
from sitelink.types import MinerState
from tests.fuzz.samples import SAMPLES
from tests.unit.agent.cgminer import native_replies_of as native
from tests.unit.agent.cgminer import replies_of as made
from tests.unit.agent.cgminer import web_replies_of as web

pytestmark = pytest.mark.agent

STOPPED: dict[str, dict[str, bytes]] = {
    "antminer": native.antminer_new_api(1, 0.0),
    "auradine": web.auradine("on", 0.0),
    "braiins": native.braiins_graphql(0.0),
    "braiins-rest": native.braiins_rest(3, 0.0),
    "elphapex": web.elphapex(1, 0.0),
    "epic": web.epic("Idling", "Stop", HBs=[]),
    "luxos": made.luxos(CurtailMode="Sleep"),
    "vnish": native.vnish("stopped", 0.0),
    "whatsminer-v3": native.whatsminer_v3("false", 0.0),
}
CASES = [(dialect, replies) for told in (SAMPLES, STOPPED) for dialect, replies in told.items() if dialect in TABLES]


@pytest.mark.parametrize(("dialect", "replies"), CASES, ids=[dialect for dialect, _ in CASES])
@pytest.mark.parametrize("garbage", [None, b"{}", b"<html>", b"[]"])
@pytest.mark.parametrize("pools", [True, False])
def test_a_poll_that_tells_nothing_is_unknown(
    dialect: str, replies: dict[str, bytes], garbage: bytes | None, pools: bool
) -> None:
    commands = TABLES[dialect].commands
    static = Sections()
    for command in commands.static:
        if command in replies:
            static.add(decode(replies[command]), command)
    fresh = Sections(static)
    if pools:
        fresh.add(decode(made.POOLS), "pools")
    for command in (*commands.poll, *commands.idle) if garbage is not None else ():
        try:
            fresh.add(decode(garbage), command)
        except Garbled:
            fresh.garbled = True
    seen = interpret(dialect, fresh)
    assert (seen.state, seen.hashrate_ths, seen.power_w) == (MinerState.UNKNOWN, None, None)
