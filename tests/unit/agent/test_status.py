"""What `ballast-agent status` says is what the files say, with the daemon alive or dead."""

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from agent import local_socket
from agent import status as module
from agent.buffer import Buffer
from agent.buffer import schema as buffer_schema
from agent.errors import BadInput
from agent.local_curtail import inbox
from agent.local_curtail.schema import schema as curtail_schema
from agent.lock import StateLock, is_held
from agent.settings import Settings, load_settings
from agent.status import DaemonStatus, as_json, as_table, read_status, write_status
from agent.storage import connect, in_transaction
from sitelink.clock import ManualClock
from sitelink.orders import write_plan
from sitelink.types import (
    BatchBody,
    Curtailment,
    CurtailmentCause,
    Fallback,
    Interval,
    MinerState,
    Ramp,
    Reading,
    SitePlan,
)
from sitelink.units import Watts
from tests.unit.agent.storage_fakes import InlineWriter

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RAMP = Ramp(Watts(0), 0.0)


def plan(start: datetime, end: datetime) -> SitePlan:
    cut = Curtailment("c-1", CurtailmentCause.PRICE, Interval(start, end), ("m1", "m2"), RAMP, RAMP)
    valid = Interval(NOON - timedelta(hours=1), max(end, NOON + timedelta(hours=2)))
    return SitePlan("p-1", "pecos-1", "a", 1, 4, 7, NOON, valid, Fallback.RUN, (cut,))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    (tmp_path / "state").mkdir()
    return load_settings(tmp_path / "agent.toml", {})


@pytest.fixture
def database(settings: Settings) -> sqlite3.Connection:
    connection = connect(settings.database)
    in_transaction(connection, buffer_schema)
    in_transaction(connection, curtail_schema)
    yield connection
    connection.close()


def daemon(clock: ManualClock) -> DaemonStatus:
    return DaemonStatus("0.1.0", clock.boot, clock.mono, NOON, True, 0.4, {"hashing": 9, "idle": 1}, {"stop held": 1})


async def test_a_dead_agents_files_still_tell_plan_and_backlog(
    settings: Settings, database: sqlite3.Connection
) -> None:
    clock = ManualClock(NOON, 1000.0)
    buffer = Buffer(InlineWriter(database), clock, "pecos-1", lambda: "epoch")
    await buffer.append(BatchBody(readings=(Reading("m1", NOON, MinerState.IDLE),)))
    order = plan(NOON + timedelta(minutes=30), NOON + timedelta(minutes=90))
    in_transaction(database, lambda db: inbox.hold_plan(db, inbox.HeldPlan(1, 4, write_plan(order)), NOON))
    found = read_status(settings, clock)
    assert (found.running, found.daemon, found.trust.value) == (False, None, "untrusted")
    assert (found.plan, found.backlog_batches, found.next_seq) == (order, 1, 1)
    shown = json.loads(as_json(found))
    assert shown["link"] == {"up": None, "age_s": None}, "what only the daemon knows is unknown"
    assert shown["miners"] is None
    assert shown["next_curtailment"]["miners"] == 2
    assert shown["next_curtailment"]["running"] is False
    table = as_table(found)
    assert "not running" in table
    assert "in 0:30:00: 2 miners" in table
    assert "revision 7" in table


async def test_how_full_the_buffer_is_and_what_was_left_out_is_told(
    settings: Settings, database: sqlite3.Connection
) -> None:
    clock = ManualClock(NOON, 1000.0)
    buffer = Buffer(InlineWriter(database), clock, "pecos-1", iter(map(str, range(99))).__next__, max_bytes=5000)
    for minute in range(40):
        at = NOON + timedelta(seconds=30 * minute)
        await buffer.append(BatchBody(readings=(Reading("m1", at, MinerState.IDLE),)))
    shown = json.loads(as_json(found := read_status(settings, clock)))["backlog"]
    assert shown["thinned_items"] + shown["given_up_items"] > 0
    assert shown["kept_every_s"] != 0
    assert shown["disk_is_full"] is None, "only the daemon knows"
    assert "items thinned out so far" in as_table(found)
    full = replace(daemon(clock), disk_is_full=True)
    write_status(settings.site.state_dir / "status.json", full)
    with StateLock(settings.site.state_dir):
        assert "THE DISK IS FULL" in as_table(read_status(settings, clock))


def test_a_running_agents_word_is_shown_while_it_is_fresh(settings: Settings, database: sqlite3.Connection) -> None:
    clock = ManualClock(NOON, 1000.0)
    write_status(settings.site.state_dir / "status.json", daemon(clock))
    with StateLock(settings.site.state_dir):
        clock.advance(3)
        shown = json.loads(as_json(read_status(settings, clock)))
        assert shown["running"] is True
        assert shown["link"] == {"up": True, "age_s": 3.4}
        assert shown["miners"] == {"hashing": 9, "idle": 1}
        clock.advance(60)
        silent = read_status(settings, clock)
        assert json.loads(as_json(silent))["link"]["up"] is None
        assert "silent for 0:01:03" in as_table(silent)
    assert "not running" in as_table(read_status(settings, clock))


def test_a_killed_agents_last_word_is_not_believed(settings: Settings, database: sqlite3.Connection) -> None:
    clock = ManualClock(NOON, 1000.0)
    write_status(settings.site.state_dir / "status.json", daemon(clock))
    found = read_status(settings, clock)
    assert found.running is False
    assert json.loads(as_json(found))["link"]["up"] is False


def test_a_word_from_another_boot_is_not_believed(settings: Settings, database: sqlite3.Connection) -> None:
    clock = ManualClock(NOON, 1000.0)
    write_status(settings.site.state_dir / "status.json", daemon(clock))
    clock.reboot("boot-2", NOON)
    assert (read_status(settings, clock)).daemon is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"written_at": "x"}'])
def test_a_broken_status_file_is_no_status(settings: Settings, database: sqlite3.Connection, content: str) -> None:
    (settings.site.state_dir / "status.json").write_text(content)
    assert (read_status(settings, ManualClock(NOON))).daemon is None


def test_a_running_and_a_past_curtailment(settings: Settings, database: sqlite3.Connection) -> None:
    order = plan(NOON, NOON + timedelta(hours=1))
    in_transaction(database, lambda db: inbox.hold_plan(db, inbox.HeldPlan(1, 4, write_plan(order)), NOON))
    found = read_status(settings, ManualClock(NOON))
    assert module.next_curtailment(found)["running"] is True
    assert "running: 2 miners" in as_table(found)
    later = replace(found, now=NOON + timedelta(hours=3))
    assert module.next_curtailment(later) is None
    assert "EXPIRED" in as_table(later)
    assert "none planned" in as_table(later)


def test_a_database_that_is_none_is_told(settings: Settings) -> None:
    settings.database.write_bytes(b"no database" * 500)
    with pytest.raises(BadInput, match=r"agent\.db: cannot be read"):
        read_status(settings, ManualClock(NOON))


def test_one_agent_a_state_dir(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with StateLock(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(BadInput, match="another agent runs"), StateLock(tmp_path):
            pass
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with StateLock(tmp_path):
        pass


def test_a_state_dir_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot be written: .*check \[site\] state_dir"), StateLock(tmp_path / "file"):
        pass


def test_a_daemon_that_holds_the_lock_and_says_nothing_is_called_hung(
    settings: Settings, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOON, 100.0)
    state_dir = settings.site.state_dir
    write_status(state_dir / "status.json", daemon(clock))
    silence = partial(local_socket.Conversation, silence_s=0.2)
    monkeypatch.setattr(module, "Conversation", silence)
    door = local_socket.listening(state_dir)  # it listens and never takes anybody in, as a stopped process does
    with StateLock(state_dir):
        found = read_status(settings, clock)
        assert "agent             HUNG: the daemon says nothing for 0.2 s" in as_table(found)
        assert "systemctl restart ballast-agent" in as_table(found)
        assert json.loads(as_json(found))["hung"] is True
    door.close()
    assert json.loads(as_json(read_status(settings, clock)))["hung"] is False
