"""`ballast-agent discover` on real sockets: miners, strangers and the silent, each asked gently and believed by answer."""

import asyncio
import errno
import json
import os
import random
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.device import Device
from agent.cli import main
from agent.cli.discover import _bar
from agent.discover import report
from agent.discover.look import Looker
from agent.discover.shown import Look
from agent.discover.standing import candidates, judge
from agent.discover.sweep import Manners, Progress, Sweep
from agent.errors import Unreachable
from agent.follow import LOST_FOR_S, follower_of
from agent.inventory import load_as_found
from agent.inventory.learned import Learned
from agent.settings import load_settings
from agent.vault import Vault
from sitelink.clock import ManualClock
from sitelink.inventory import MinerEntry, read_miners
from sitelink.types import MinerState, Reading, Reason
from tests.contract.fake_miner import FakeMiner, Speak, serving
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=0.3, first_byte_s=0.3, total_s=1)
LUXOS_MAC = "62:f7:5e:00:00:01"
MANNERS = Manners(at_once=8, knocks_per_s=10_000, connect_s=0.3, host_s=4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def site(speakers: dict[str, Speak]) -> AsyncIterator[int]:
    """Serve each host of loopback on one port, which is yielded."""
    port = free_port()
    async with AsyncExitStack() as stack:
        for host, speak in speakers.items():
            await stack.enter_async_context(serving(speak, host, port))
        yield port


async def found_on(speakers: dict[str, Speak], hosts: int = 8) -> dict[str, Look]:
    async with site(speakers) as port:
        sweep = Sweep(Looker(SHORT, port, free_port()), MANNERS, random.Random(1))
        looks = await sweep.run([f"127.40.0.{n}" for n in range(1, hosts + 1)])
    return {look.host: look for look in looks}


async def hold(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip(request: bytes, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"{")
        await writer.drain()
        await asyncio.sleep(0.05)


def says(reply: bytes) -> Speak:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    return speak


async def test_miners_are_found_by_what_they_answer() -> None:
    looks = await found_on(
        {"127.40.0.1": FakeMiner(dict(made.luxos())).speak, "127.40.0.2": FakeMiner(dict(made.avalon())).speak}
    )
    assert set(looks) == {"127.40.0.1", "127.40.0.2"}
    first = looks["127.40.0.1"].observation
    assert first is not None
    assert (first.dialect, first.state) == ("luxos", MinerState.HASHING)
    assert first.mac is not None
    assert first.mac in looks["127.40.0.1"].names
    second = looks["127.40.0.2"].observation
    assert second is not None
    assert second.dialect == "avalon"


async def test_a_whatsminer_is_found_with_its_model() -> None:
    """It tells it in ``devdetails`` alone, which was asked only where ``version`` had not shown the firmware."""
    speak = FakeMiner(
        {
            "version": made.btminer(131, {"api_ver": "2.0.5", "fw_ver": "20230101.REL"}),
            "summary": made.whatsminer_summary(),
            "devdetails": made.answer(69, "DEVDETAILS", {"ID": 0, "Driver": "bitmicro", "Model": "M50S_VH30"}),
        }
    ).speak
    sightings = judge(tuple((await found_on({"127.40.0.5": speak})).values()), [], Learned())
    assert "M50S_VH30" in report.as_table(sightings, [])
    rows, _ = candidates(sightings)
    assert [(row.dialect, row.model) for row in rows] == [("whatsminer", "M50S_VH30")]


async def test_a_name_behind_a_page_at_another_port_is_asked_for_by_its_port() -> None:
    version = made.answer(22, "VERSION", {"CGMiner": "4.11.1", "API": "3.7", "Type": "Antminer S19j Pro (Vnish 1.2.6)"})
    looks = await found_on({"127.40.0.4": FakeMiner({"version": version}).speak})
    look = looks["127.40.0.4"]
    assert look.observation is not None
    assert look.names == ()
    assert "give its port with --web-port" in look.notes[0]


@pytest.mark.parametrize(
    "speak",
    [
        says(b""),
        says(b"\x00"),
        says(b"SSH-2.0-OpenSSH_9.2\r\n"),
        says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        says(b"{" * 4096),
        says(bytes(range(256)) * 64),
        says(b"x" * 300_000),
        says(b"[]"),
        says(b'{"hello": "world"}'),
        hold,
        drip,
    ],
    ids=["closes", "nul", "ssh", "http", "braces", "bytes", "flood", "list", "json", "silent", "drip"],
)
async def test_who_answers_as_no_miner_is_called_none_and_says_why(speak: Speak) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    looks = await found_on({"127.40.0.3": speak})
    assert loop.time() - begun < 5
    look = looks["127.40.0.3"]
    assert (look.names, look.observation) == ((), None)
    assert look.notes
    assert "it is tried again" not in look.notes[0]


async def test_where_nobody_listens_nobody_is_found() -> None:
    assert await found_on({}) == {}


async def test_a_host_has_one_connection_at_a_time_and_none_is_repeated_where_it_fell_silent() -> None:
    now, most, connections = 0, 0, 0

    async def counting(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most, connections
        now, connections = now + 1, connections + 1
        most = max(most, now)
        try:
            if request:
                await asyncio.sleep(60)
        finally:
            now -= 1

    await found_on({"127.40.0.5": counting}, hosts=8)
    assert most == 1
    assert connections == 2, "a knock and one question; silence is not asked again"


async def test_a_miner_is_asked_each_thing_once() -> None:
    miner = FakeMiner(dict(made.luxos()))
    await found_on({"127.40.0.1": miner.speak})
    commands = [command for command in miner.commands() if command]
    repeated = {command for command in commands if commands.count(command) > 1}
    assert repeated <= {"version", "devdetails", "summary"}, "telling the firmware and reading it are two steps"
    assert len(commands) < 20


def test_the_command_shows_what_it_found_against_the_inventory_and_writes_only_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miner = FakeMiner(dict(made.luxos()))
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    inventory = tmp_path / "inventory.csv"
    inventory.write_text(header + "\n")

    def discover(*arguments: str) -> str:
        async def run() -> int:
            async with site({"127.40.0.1": miner.speak}) as port:
                options = ("discover", "127.40.0.0/29", "--config", str(tmp_path / "agent.toml"), "--port", str(port))
                return await asyncio.to_thread(main, (*options, "--web-port", str(port), *arguments))

        assert asyncio.run(run()) == 0
        return capsys.readouterr().out

    table = discover()
    assert "1 miner: 1 new" in table
    assert "luxos" in table
    assert inventory.read_text() == header + "\n"
    assert not (tmp_path / "state").exists(), "nothing new is noted of whom nobody listed"
    document = json.loads(discover("--json", "--write", str(tmp_path / "new.csv")))
    (found,) = document["found"]
    assert (found["standing"], found["hashing"], document["hosts"]) == ("new", True, 6)
    (row,) = read_miners("new.csv", (tmp_path / "new.csv").read_bytes())
    assert (row.miner_id, row.host, row.rack, row.nameplate_w) == (found["mac"], "127.40.0.1", "", None)
    listed = replace(row, host="127.40.0.2", rack="R1", position=4)
    inventory.write_text(f"{header}\n{listed.miner_id},{listed.host},{listed.port},luxos,S19,F1,R1,4,3000,100\n")
    assert "1 miner: 1 moved" in discover()
    assert set(Learned.load(tmp_path / "state").names) == {listed.miner_id}
    assert "rack,position" in inventory.read_text()


def test_follow_notes_where_a_listed_miner_answers_now_and_changes_no_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miner = FakeMiner(dict(made.luxos()))
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    config = tmp_path / "agent.toml"
    config.write_text('[site]\nsite_id = "pecos-1"\nranges = ["127.40.0.0/30"]\n')
    inventory = tmp_path / "inventory.csv"

    def follow(*arguments: str) -> str:
        async def run() -> int:
            async with site({"127.40.0.1": miner.speak}) as port:
                inventory.write_text(f"{header}\n{LUXOS_MAC},127.40.0.2,{port},luxos,S19,F1,R1,4,3000,100\n")
                return await asyncio.to_thread(main, ("inventory", "follow", "--config", str(config), *arguments))

        assert asyncio.run(run()) == 0
        return capsys.readouterr().out

    assert "1 miners have moved; nothing was noted: this was a dry run" in follow("--dry-run")
    assert not (tmp_path / "state").exists()
    assert "1 miners have moved; a running agent looks for them there within seconds" in follow()
    (found,) = load_as_found(inventory, tmp_path / "state")
    assert found.host == "127.40.0.1"
    assert ",127.40.0.2," in inventory.read_text()


def test_a_swap_is_checked_against_who_answers_and_takes_its_model_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miner = FakeMiner(dict(made.luxos()))
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    inventory = tmp_path / "inventory.csv"
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')

    def swap(new: str, *arguments: str) -> tuple[int, str, str]:
        async def run() -> int:
            async with site({"127.40.0.1": miner.speak}) as port:
                inventory.write_text(f"{header}\nOLD,127.40.0.1,{port},vnish,S19,F1,R1,4,3000,100\n")
                told = ("inventory", "swap", "OLD", new, "--reason", "x", "--config", str(tmp_path / "agent.toml"))
                return await asyncio.to_thread(main, (*told, *arguments))

        code = asyncio.run(run())
        output = capsys.readouterr()
        return code, output.out, output.err

    code, _, wrong = swap("02:00:00:00:00:99")
    assert code == 2
    assert f"{LUXOS_MAC} answers at 127.40.0.1, not 02:00:00:00:00:99" in wrong
    assert swap("02:00:00:00:00:99", "--unseen")[0] == 0
    assert swap(LUXOS_MAC)[0] == 0
    (row,) = read_miners("inventory.csv", inventory.read_bytes())
    assert (row.miner_id, row.dialect, row.model) == (LUXOS_MAC, "luxos", "Antminer S19 XP")
    assert (row.rack, row.position, row.nameplate_w) == ("R1", 4, None)
    code, out, _ = swap("02:00:00:00:00:99", "--host", "127.40.0.2")
    assert code == 0
    assert "note: nobody at 127.40.0.2 tells a name" in out


async def nobody(miner_ids) -> None:
    assert not miner_ids, "no password has changed"


async def test_the_daemon_reads_a_lost_miner_where_it_answers_now(tmp_path: Path) -> None:
    miner = FakeMiner(dict(made.luxos()))
    async with site({"127.40.0.1": miner.speak}) as port:
        (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\nranges = ["127.40.0.0/30"]\n')
        settings = load_settings(tmp_path / "agent.toml", {})
        entry = MinerEntry(LUXOS_MAC, "127.40.0.2", port, "luxos", "S19", "F1", "R1", 4, None, None)
        clock, vault = ManualClock(datetime(2026, 6, 1, tzinfo=UTC)), Vault.open(settings)
        device = Device(Address(entry.host, port), "luxos", clock, miner_id=LUXOS_MAC, deadlines=SHORT)
        lost = Reading(LUXOS_MAC, clock.now(), MinerState.UNKNOWN, Reason.UNREACHABLE)
        follower = follower_of(
            settings, [entry], {LUXOS_MAC: device}, vault, {LUXOS_MAC: lost}.get, random.Random(1), clock, nobody
        )
        with pytest.raises(Unreachable):
            await device.identity()
        await follower.search()
        clock.advance(LOST_FOR_S)
        await follower.search()
        assert device.address == Address("127.40.0.1", port)
        assert await device.identity() == LUXOS_MAC
        assert (await device.observe()).state is MinerState.HASHING


def test_follow_without_a_range_says_where_to_write_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    assert main(("inventory", "follow", "--config", str(tmp_path / "agent.toml"))) == 2
    assert "has no [site] ranges; write 10.0.0.0/22" in capsys.readouterr().err


def test_progress_is_one_line_redrawn_only_when_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    draw = _bar()
    for looked_at in range(1, 5001):
        draw(Progress(looked_at, 5000, looked_at // 10))
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.endswith("[##############################] 5,000 of 5,000, 500 miners\n")
    assert shown.count("\r") <= 1001
    assert "\r[###############...............] 2,500 of 5,000, 250 miners" in shown


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.csv").write_text("precious")
    assert main(("discover", "127.40.0.1", "--write", str(tmp_path / "new.csv"))) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "new.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("host", "cause"),
    [("nosuch.invalid", "the host name"), ("224.0.0.1", "network is unreachable; check this machine")],
)
def test_who_could_not_be_asked_is_told_apart_from_nobody(
    host: str, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(("discover", host, "127.40.0.77", "--port", str(free_port()), "--web-port", str(free_port()))) == 1
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].startswith(f"{host}: not asked: ")
    assert cause in lines[0]
    assert lines[1:] == ["0 miners", "1 address was not asked, so who is there is not known"]
    assert main(("discover", host, "--json")) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["not_asked"] == [host]
    assert told.err.startswith("1 address, ports")
    assert cause in told.err


async def test_a_sweep_without_a_socket_left_says_so_once_and_finds_not_nobody() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sweep = Sweep(Looker(SHORT, free_port(), free_port()), MANNERS, random.Random(1))
    held: list[int] = []
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 2, hard)
        )
        with suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        looks = await sweep.run(["127.40.0.1", "127.40.0.2"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in held:
            os.close(handle)
    assert [look.asked for look in looks] == [False, False]
    table = report.as_table(judge(looks, [], Learned()), [])
    assert table.count("limit of open files is reached") == 1
    assert "2 addresses were not asked" in table


def test_a_sweep_is_printed_before_its_file_is_written_and_a_full_disk_leaves_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    swept = ("discover", "127.40.0.1", "--port", str(free_port()), "--web-port", str(free_port()))
    assert main((*swept, "--write", str(tmp_path / "none" / "new.csv"))) == 2
    told = capsys.readouterr()
    assert (told.out, "there is no such folder; make it" in told.err) == ("", True), "said before the sweep"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main((*swept, "--write", str(tmp_path / "new.csv"))) == 2
    told = capsys.readouterr()
    assert told.out == "0 miners\n"
    assert "the disk is full: free some space" in told.err
    assert not (tmp_path / "new.csv").exists()
    assert main((*swept, "--write", str(tmp_path / "new.csv"))) == 0


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("10.0.0.0/8",), "more than 16,384 at once"),
        (("8.8.0.0/16",), "public internet"),
        (("127.0.0.1", "--port", "0"), "--port: 0 is no port"),
        (("127.0.0.1", "--at-once", "9999"), "--at-once: 9999 is out of range"),
        (("127.0.0.1", "--config", "/none/agent.toml"), "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("discover", *arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert cause in output.err
    assert len(output.err.splitlines()) == 1
