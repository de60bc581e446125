"""No reply, however it is made, keeps the agent from its other miners."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cgminer.replies import parse
from tests.fuzz.damage import paths, replaced
from tests.fuzz.samples import SAMPLES
from tests.fuzz.targets import TARGETS
from tests.unit.agent.cgminer.adversary import CAP_BYTES

pytestmark = pytest.mark.agent

LIMIT_S = 1.0
"""Of processor time a reading; the longest takes 0.04 s. Were one quadratic in its length, it would take minutes."""
RUNS = ("1,", "a=1,", "-1", "A[1]", " rpm 9")


def test_no_reply_costs_more_than_its_length(repository: Path) -> None:
    """256 KiB of ``a`` as an Avalon's ``MM ID0`` once took 30 s, for which no other miner was polled or stopped."""
    paths = {**os.environ, "PYTHONPATH": f"{repository}:{repository / 'proto'}"}
    command = [sys.executable, "-m", "tests.unit.agent.cgminer.adversary"]
    done = subprocess.run(command, capture_output=True, text=True, env=paths, cwd=repository, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "killed: some reading costs the square of the reply's length"


def blown_up(value: Any) -> Iterator[Any]:
    """Yield ``value`` as long as the cap allows: a list repeated, an object with more such members, a text of runs."""
    size = max(8, len(json.dumps(value)))
    if isinstance(value, list) and value:
        yield value * (CAP_BYTES // size)
    elif isinstance(value, dict) and value:
        copies = range(CAP_BYTES // (size + 5 * len(value)))
        yield {**value, **{f"{key}{place}": inner for place in copies for key, inner in value.items()}}
    elif isinstance(value, str):
        for run in RUNS:
            yield run * (CAP_BYTES // len(run))


@pytest.mark.parametrize("dialect", sorted(SAMPLES))
def test_no_part_of_a_reply_costs_more_than_its_length(dialect: str) -> None:
    slow = []
    for command, reply in SAMPLES[dialect].items():
        document = json.loads(reply)
        for path in paths(document):
            value = document
            for step in path:
                value = value[step]
            for large in blown_up(value):
                replies = {**SAMPLES[dialect], command: json.dumps(replaced(document, path, large)).encode()}
                began = time.process_time()
                parse(dialect, replies)
                if time.process_time() - began > LIMIT_S:
                    slow.append((command, path))
    assert slow == []


HEADS = {
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 60_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    "many challenges": b"HTTP/1.1 401 No\r\n" + b"WWW-Authenticate: Digest a=b,\r\n" * 500 + b"\r\n",
    "a challenge of commas": b"HTTP/1.1 401 No\r\nWWW-Authenticate: Digest " + b",a=" * 4000 + b"\r\n\r\n",
    "small chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 10_000,
    "small pieces of a body": b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000,
    "continuations": b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000,
}


@pytest.mark.parametrize("head", HEADS)
def test_no_web_page_costs_more_than_its_length(head: str) -> None:
    """Each comes in pieces of one byte and of a thousand."""
    for size in (b"\0", b"\xff"):
        began = time.process_time()
        TARGETS["web"](size + HEADS[head])
        assert time.process_time() - began < 2 * LIMIT_S


def test_a_frame_in_small_pieces_costs_its_length() -> None:
    began = time.process_time()
    TARGETS["framed"](b"\0" + (60_000).to_bytes(4, "little") + b" " * 60_000)
    assert time.process_time() - began < 2 * LIMIT_S
