"""Which transport carries the link: the preferred one while it works, the next while it does not, and no flapping."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AccessDenied, AgentError, BadInput, Transient, Unreachable
from agent.uplink import choice
from agent.uplink.choice import Choice, Way, check_installed
from sitelink.types import Cursor, DownFrame, Receipt, UpFrame, Welcome
from tests.contract.ends import AGENT, SITE, TENANT, agent_tls
from tests.contract.pki import Authority
from tests.simulation.loop import VirtualLoop

pytestmark = pytest.mark.agent

WELCOME = Welcome(Cursor("pecos-1", "epoch", -1))
RECEIPT = Receipt("pecos-1", "epoch", 0, 0, 0)
REPOSITORY = Path(__file__).resolve().parents[2]


class LoopClock:
    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def boot_id(self) -> str:
        return "boot"


class Line:
    """A transport that works as told: whether it can be connected, and how many seconds a conversation lasts."""

    def __init__(self) -> None:
        self.works = True
        self.lasts_s = float("inf")
        self.answers = True
        self.connects = 0
        self.opened_s: float | None = None
        self.shown: list[bool] = []

    async def connect(self) -> None:
        self.connects += 1
        await asyncio.sleep(0.1)
        if not self.works:
            raise Unreachable("the line is down")
        self.opened_s = asyncio.get_running_loop().time()

    async def send(self, frame: UpFrame) -> None:
        if self.opened_s is None:
            raise Unreachable("closed")

    async def receive(self) -> DownFrame:
        assert self.opened_s is not None
        now = asyncio.get_running_loop().time()
        if not self.works or now - self.opened_s >= self.lasts_s:
            raise Unreachable("the line broke")
        if now == self.opened_s:
            await asyncio.sleep(0.1)
            return WELCOME
        await asyncio.sleep(5 if self.answers else 20)
        if not self.answers:
            raise Transient("nothing heard although the stream is open")
        return RECEIPT

    async def close(self) -> None:
        self.opened_s = None

    async def show(self, up: bool) -> None:
        self.shown.append(up)


class Link:
    """A forwarder's habits with a choice of two lines: connect, listen until it breaks, wait, again."""

    def __init__(self, count: int = 2) -> None:
        self.lines = [Line() for _ in range(count)]
        self.made: list[int] = []
        ways = [Way(f"way{place}", self._maker(place)) for place in range(count)]
        self.choice = Choice(ways, LoopClock())
        self.used: list[tuple[float, str]] = []

    def _maker(self, place: int):
        def make() -> Line:
            self.made.append(place)
            return self.lines[place]

        return make

    async def talk(self) -> None:
        while True:
            try:
                await self.choice.connect()
                name = self.choice.name
                if not self.used or self.used[-1][1] != name:
                    self.used.append((asyncio.get_running_loop().time(), name))
                while True:
                    await self.choice.receive()
            except AgentError:
                await self.choice.close()
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                await self.choice.close()
                raise

    async def run(self, seconds: float) -> None:
        task = asyncio.create_task(self.talk())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def names(self) -> list[str]:
        return [name for _, name in self.used]


def virtually(work: Coroutine[Any, Any, None]) -> None:
    loop = VirtualLoop(random.Random(1))
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def test_while_the_preferred_one_works_no_other_is_made() -> None:
    async def story() -> None:
        link = Link()
        await link.run(7200)
        assert link.made == [0]
        assert link.lines[0].connects == 1

    virtually(story())


def test_a_conversation_that_held_before_it_broke_is_no_reason_to_leave() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].lasts_s = 90
        await link.run(7200)
        assert link.names() == ["way0"]
        assert link.lines[0].connects > 50

    virtually(story())


def test_after_failures_in_a_row_the_next_is_taken() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].works = False
        await link.run(10)
        assert link.names() == ["way1"]
        assert link.lines[0].connects == choice._FAILURES

    virtually(story())


def test_conversations_that_never_hold_are_failures() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].lasts_s = 6
        await link.run(60)
        assert link.names() == ["way0", "way1"]

    virtually(story())


def test_an_open_line_on_which_nothing_is_heard_is_a_failure() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].answers = False
        await link.run(100)
        assert link.names() == ["way0", "way1"]

    virtually(story())


def test_the_preferred_one_is_gone_back_to_once_it_stands_and_is_not_connected_twice() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].works = False
        task = asyncio.create_task(link.run(3600))
        await asyncio.sleep(900)
        assert link.names() == ["way1"]
        attempts, link.lines[0].works = link.lines[0].connects, True
        await task
        assert link.names() == ["way1", "way0"]
        assert link.lines[0].connects == attempts + 1
        assert link.used[-1][0] < 900 + choice._RETURN_S + 10
        assert link.lines[1].connects == 1, "while the preferred one was tried the other went on undisturbed"

    virtually(story())


def test_a_preferred_one_that_comes_and_goes_does_not_make_the_link_flap() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].lasts_s = 30
        await link.run(24 * 3600)
        assert link.names()[-1] == "way1"
        assert len(link.used) < 24
        gaps = [later - earlier for (earlier, name), (later, _) in pairwise(link.used) if name == "way1"]
        assert gaps == sorted(gaps), "each stay is longer than the last"

    virtually(story())


def test_when_all_fail_each_is_tried_again_and_again() -> None:
    async def story() -> None:
        link = Link(3)
        for line in link.lines:
            line.works = False
        await link.run(60)
        tries = [line.connects for line in link.lines]
        assert min(tries) >= 10
        assert max(tries) - min(tries) <= choice._FAILURES
        link.lines[2].works = True
        await link.run(10)
        assert link.names() == ["way2"]

    virtually(story())


def test_one_alone_is_never_left() -> None:
    async def story() -> None:
        link = Link(1)
        link.lines[0].works = False
        await link.run(60)
        assert link.lines[0].connects > 30

    virtually(story())


def test_a_library_that_cannot_be_loaded_is_a_failure_like_any_other() -> None:
    def broken() -> Line:
        raise ImportError("libstdc++.so.6: cannot open shared object file")

    async def story() -> None:
        line = Line()
        link = Link()
        link.choice = Choice([Way("grpc", broken), Way("mqtt", lambda: line)], LoopClock())
        await link.run(10)
        assert link.names() == ["mqtt"]
        with pytest.raises(Unreachable, match=r"install ballast-agent\[grpc\]"):
            link.choice._uplink(0)

    virtually(story())


def test_the_state_is_shown_on_the_line_in_use_alone() -> None:
    async def story() -> None:
        link = Link()
        link.lines[0].works = False
        task = asyncio.create_task(link.run(20))
        await asyncio.sleep(10)
        await link.choice.show(True)
        await task
        await link.choice.show(True)
        assert [line.shown for line in link.lines] == [[], [True]]

    virtually(story())


def test_a_transport_that_is_not_installed_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(("grpc", "mqtt"))
    monkeypatch.setitem(choice._LIBRARIES, "mqtt", "no_such_library")
    with pytest.raises(BadInput, match=r"mqtt is not installed here; install ballast-agent\[mqtt\]"):
        check_installed(("grpc", "mqtt"))


PROGRAM = """
import asyncio, json, sys
import agent.app
from agent.errors import AgentError
from agent.identity import load_identity
from agent.settings import load_settings
from agent.transports import uplink_of
from pathlib import Path
from sitelink.clock import SystemClock

def loaded():
    return sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "aiomqtt", "paho"})

async def main():
    settings = load_settings(Path(sys.argv[1]), {})
    identity = load_identity(settings.identity_dir, settings.site.site_id)
    seen = [loaded()]
    uplink = uplink_of(settings.link, identity, SystemClock(), lambda: "id")
    seen.append(loaded())
    for _ in range(int(sys.argv[2])):
        try:
            await uplink.connect()
        except AgentError:
            pass
        seen.append(loaded())
    print(json.dumps(seen))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("transports", "expected"),
    [
        ('["grpc"]', [[], [], ["grpc"], ["grpc"], ["grpc"]]),
        ('["mqtt"]', [[], [], ["aiomqtt", "paho"], ["aiomqtt", "paho"], ["aiomqtt", "paho"]]),
        ('["mqtt", "grpc"]', [[], [], ["aiomqtt", "paho"], ["aiomqtt", "paho"], ["aiomqtt", "grpc", "paho"]]),
    ],
)
def test_only_the_transport_in_use_is_imported(transports: str, expected: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        f'[site]\nsite_id = "{SITE}"\n[link]\ntransports = {transports}\nendpoint = "127.0.0.1:9"\n'
        'mqtt_endpoint = "127.0.0.1:9"\n'
    )
    folder = tmp_path / "state/identity"
    folder.mkdir(parents=True)
    tls = agent_tls(Authority())
    key = "00" * 31 + "01"
    trust = {"tenant_id": TENANT, "site_id": SITE, "agent_id": AGENT, "order_keys": [key], "time_keys": [key]}
    (folder / "trust.json").write_text(json.dumps(trust))
    for name, pem in (("ca.crt", tls.ca_pem), ("agent.crt", tls.certificate_pem), ("agent.key", tls.key_pem)):
        (folder / name).write_bytes(pem)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "agent.toml"), "3"]
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"}
    done = subprocess.run(command, capture_output=True, text=True, env=paths, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_a_refusal_by_one_is_tried_by_the_other_too() -> None:
    async def story() -> None:
        link = Link()

        async def refuse() -> None:
            raise AccessDenied("revoked")

        link.lines[0].connect = refuse
        await link.run(10)
        assert link.names() == ["way1"]

    virtually(story())


WITHOUT_GRPC = """
import sys
sys.modules["grpc"] = None  # as where it is not installed
from agent.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_grpc_enrolling_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(f'[site]\nsite_id = "{SITE}"\n')
    command = ["enrol", "--config", str(tmp_path / "agent.toml"), "--token", f"ballast1.c2VjcmV0.{'0' * 64}"]
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRPC, *command], capture_output=True, text=True, env=paths, timeout=60
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        ["ballast-agent: enrolling speaks gRPC, whatever carries the link; install ballast-agent[grpc] first"],
    )
