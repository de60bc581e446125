"""A log line stays one line of key=value."""

import logging
import sys

import pytest

from agent.logs import LineFormatter

pytestmark = pytest.mark.agent


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("agent.poller", logging.WARNING, "f.py", 1, message, arguments, None)
    made.created = 1_764_000_000.25
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def test_a_line_tells_when_who_and_what() -> None:
    line = LineFormatter("pecos-1").format(record("miner %s is off", "m1", miner_id="m1", plan_revision=4))
    assert line == (
        "ts=2025-11-24T16:00:00.250Z level=warning site_id=pecos-1 module=poller "
        'msg="miner m1 is off" miner_id=m1 plan_revision=4'
    )


def test_line_breaks_and_traces_do_not_break_the_line() -> None:
    try:
        raise KeyError("a\nb")
    except KeyError:
        made = record('said "no"\nand left')
        made.exc_info = sys.exc_info()
    line = LineFormatter("s").format(made)
    assert "\n" not in line
    assert r'msg="said \"no\"\nand left"' in line
    assert "trace=" in line
    assert "KeyError" in line
