"""What is fuzzed: each target takes bytes as a device would send them and raises only if something is wrong.

A target may end in an AgentError where that is its contract; ``parse`` never raises. What an observation claims is
checked too: finite values, no state without evidence, a reading that can be put on the wire.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from agent.cgminer.challenge import best_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import TABLES, table_of
from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.replies import identify, parse
from agent.cgminer.status import Status
from agent.errors import AgentError, Garbled
from sitelink.types import MinerState, PowerSource, Reason
from tests.bench.capture_names import asked_by
from tests.fuzz.wires import framed_reply, web_reply

DIALECTS: Final = (*sorted(TABLES), "auto", "nonsense")
TELLING: Final = ("version", "stats", "/api/system/info", "/summary", "/mcb/status", "v3:get.device.info")
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    dialect: asked_by(table_of(dialect)) or ("summary",) for dialect in DIALECTS
}


def parse_everywhere(data: bytes) -> None:
    """Read the bytes as the reply to every command of one dialect, which the first byte chooses."""
    dialect = DIALECTS[data[0] % len(DIALECTS)] if data else "auto"
    check(parse(dialect, dict.fromkeys(COMMANDS[dialect], data[1:])))


def parse_each(data: bytes) -> None:
    """Read pieces of the bytes, cut at NUL, as the replies to a dialect's commands one after the other."""
    dialect = DIALECTS[data[0] % len(DIALECTS)] if data else "auto"
    check(parse(dialect, dict(zip(COMMANDS[dialect], data[1:].split(b"\0"), strict=False))))


def check(seen: Observation) -> None:
    """Raise AssertionError if the observation claims what it cannot know, or cannot be sent on."""
    for name in ("hashrate_ths", "hashrate_average_ths", "expected_ths", "power_w", "power_limit_w", "uptime_s"):
        value = getattr(seen, name)
        assert value is None or (math.isfinite(value) and value >= 0), (name, value)
    for temps in (seen.board_temps_c, seen.chip_temps_c, (seen.env_temp_c or 0.0,)):
        assert all(-60 <= temp <= 250 for temp in temps), temps
    if seen.state is MinerState.HASHING:
        assert seen.hashrate_ths, "hashing without a rate"
        assert seen.reason is Reason.NONE
    else:
        assert seen.reason is not Reason.NONE
    assert (seen.power_w is None) == (seen.power_source is PowerSource.NONE)
    for text in (seen.model, seen.firmware, seen.serial, seen.hostname, *seen.errors, *seen.identities):
        assert text is None or isinstance(text, str), text


def read_document(data: bytes) -> None:
    """Decode, and read the status of what was decoded."""
    try:
        document = decode(data).document
    except Garbled:
        return
    status = Status.of(document)
    assert isinstance(status.text, str)
    try:
        status.raise_if_denied("a miner")
    except AgentError:
        assert status.denied


def read_plain_text(data: bytes) -> None:
    """Decode the plain text form of the API."""
    read_document(b"STATUS=S,Code=11,Msg=Summary|" + data)


def name_dialect(data: bytes) -> None:
    """Tell the dialect by pieces of the bytes, cut at NUL, as the replies to what is asked to find it out."""
    assert identify(dict(zip(TELLING, data.split(b"\0"), strict=False))) in DIALECTS


def answer_challenge(data: bytes) -> None:
    """Answer whatever way in a web server offers."""
    challenge = best_of(line for line in data.decode("latin-1").split("\n") if line)
    if challenge is not None:
        header = challenge.answer("GET", "/", Credentials("root", "s3cret"), "00")
        assert header.startswith(("Basic ", "Digest "))


def hear_web_page(data: bytes) -> None:
    """Hear an HTTP response that comes in pieces."""
    _heard(web_reply, data)


def hear_frame(data: bytes) -> None:
    """Hear a reply of the framed API that comes in pieces."""
    _heard(framed_reply, data)


def _heard(wire: Callable[[bytes], bytes], data: bytes) -> None:
    """Hear and decode; an AgentError is an end as good as any."""
    try:
        body = wire(data)
    except AgentError:
        return
    read_document(body)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "parse": parse_everywhere,
    "replies": parse_each,
    "decode": read_document,
    "text": read_plain_text,
    "identify": name_dialect,
    "challenge": answer_challenge,
    "web": hear_web_page,
    "framed": hear_frame,
}
