"""The doctor names each cause with its next step, and no broken part hides another."""

import json
import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.cli import main
from agent.doctor import daemon, examine, files, journal, machine
from agent.doctor.doubts import liars
from agent.doctor.finding import Finding, Level, lines
from agent.doctor.orders import orders
from agent.doctor.outlets import outlets
from agent.errors import TimedOut
from agent.local_curtail import by_hand, overrides
from agent.local_curtail.anchor import Anchor
from agent.local_curtail.chain import Chain, Kind, Note
from agent.local_curtail.doubts import Difference, mark_of
from agent.local_curtail.evidence import Lie
from agent.local_curtail.records import MinerRecord, to_json
from agent.local_curtail.schema import schema
from agent.lock import StateLock
from agent.settings import Settings, load_settings
from agent.status import DaemonStatus, write_status
from agent.storage import connect
from sitelink.clock import ManualClock, SystemClock
from sitelink.types import ClockTrust, Outcome, Verb
from sitelink.units import Watts

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HEADER = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    (tmp_path / "inventory.csv").write_text(HEADER + "m1,127.0.0.1,4028,luxos,S19,f1,r1,1,3000,100\n")
    (tmp_path / "meters.csv").write_text("meter_id,kind,feeder_id,url\n")
    (tmp_path / "state").mkdir(mode=0o700)
    return load_settings(tmp_path / "agent.toml", {})


def one(findings: object, level: Level) -> Finding:
    found = [finding for finding in findings if finding.level is level]  # type: ignore[attr-defined]
    assert len(found) == 1, found
    return found[0]


def test_it_looks_at_everything_and_says_what_to_do(settings: Settings) -> None:
    found = examine.examine(settings, SystemClock())
    assert {finding.name for finding in found} >= {
        *("daemon", "lock", "report", "meters", "inventory", "passwords", "identity", "disk", "permissions"),
        *("database", "open files", "wall clock"),
    }
    assert all(finding.step for finding in found if finding.level in {Level.WARN, Level.BAD})
    assert "-> systemctl start ballast-agent" in "\n".join(lines(found))


def test_a_look_that_fails_hides_no_other(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(machine, "disk", broken)
    monkeypatch.setattr(files, "identity", broken)
    found = {finding.name: finding for finding in examine.examine(settings, SystemClock())}
    assert (found["disk"].level, found["disk"].what) == (Level.BAD, "ZeroDivisionError()")
    assert found["inventory"].level is Level.OK


@pytest.mark.parametrize(
    ("free", "files_left", "flag", "level", "told"),
    [
        (10_000, 10**6, 0, Level.OK, "10,000 MB free"),
        (300, 10**6, 0, Level.WARN, "300 MB free"),
        (10, 10**6, 0, Level.BAD, "10 MB free"),
        (10_000, 0, 0, Level.BAD, "0 files left"),
        (10_000, 10**6, os.ST_RDONLY, Level.BAD, "read-only"),
    ],
)
def test_a_disk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, files_left: int, flag: int, level: Level, told: str
) -> None:
    found = SimpleNamespace(f_bavail=free, f_frsize=1024**2, f_files=10**7, f_favail=files_left, f_flag=flag)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert told in one(machine.disk(settings), level).what


def test_permissions_and_owners(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings.site.state_dir
    assert one(machine.permissions(settings), Level.OK)
    folder.chmod(0o755)
    assert "chmod 700" in one(list(machine.permissions(settings))[:1], Level.WARN).step
    folder.chmod(0o700)
    (folder / "identity").mkdir()
    key = folder / "identity" / "key.pem"
    key.touch()
    key.chmod(0o644)
    assert "others can read this site's key" in one(machine.permissions(settings), Level.BAD).what
    key.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(key, 12345, 12345)
        assert "chown -R --reference" in one(machine.permissions(settings), Level.BAD).step


def test_a_stepped_wall_clock_is_seen_against_the_signed_time() -> None:
    clock = ManualClock(NOON, 1000.0)
    anchor = Anchor(clock.boot, 1000.0, NOON, 0.1, 1000.0)
    assert one(machine.wall_clock(anchor, clock), Level.OK)
    clock.step(3600)
    assert "3,600 s ahead of the signed time" in one(machine.wall_clock(anchor, clock), Level.WARN).what
    clock.reboot("boot-2", NOON)
    assert one(machine.wall_clock(anchor, clock), Level.UNKNOWN)


def test_few_open_files(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 100))
    assert "LimitNOFILE" in one(machine.open_files(settings), Level.WARN).step


def test_the_meters_count_among_the_open_files(settings: Settings) -> None:
    said = one(machine.open_files(settings), Level.OK).what
    settings.site.meters.write_text("meter_id,kind,feeder_id,url\nsite,site,,modbus://127.0.0.1:502/1?register=0\n")
    assert int(one(machine.open_files(settings), Level.OK).what.split()[0]) == int(said.split()[0]) + 1


def test_lists_and_passwords(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "inventory.csv"
    path.write_text(HEADER + "m1,127.0.0.1,0,luxos,S19,f1,r1,1,3000,100\n")
    assert "inventory.csv line 2: port" in one(files.inventory(settings), Level.BAD).what
    path.write_text(HEADER)
    assert "no miner is listed" in one(files.inventory(settings), Level.BAD).what
    path.write_text(HEADER + "m1,127.0.0.1,4028,vnish,S19,f1,r1,1,,\nm2,127.0.0.2,4028,hiveon,S9,f1,r1,2,900,13\n")
    steps = [finding.step for finding in files.inventory(settings) if finding.step]
    assert steps == [
        "give them an outlet, or use their breakers",
        "fill in nameplate_w",
        "ballast-agent credentials set vnish",
    ]
    (tmp_path / "meters.csv").write_text("nonsense\n")
    assert "meters.csv" in one(files.meters(settings), Level.BAD).what


def test_a_missing_or_broken_register_map_is_named(settings: Settings, tmp_path: Path) -> None:
    rows = "m1,site,,modbus://127.0.0.1/1?map=nobodys\nm2,feeder,f1,modbus://127.0.0.1/2?map=own\n"
    settings.site.meters.write_text(f"meter_id,kind,feeder_id,url\n{rows}")
    (tmp_path / "meter_maps").mkdir()
    (tmp_path / "meter_maps" / "own.toml").write_text("model =")
    missing, broken = [finding for finding in files.meters(settings) if finding.level is Level.BAD]
    assert "'nobodys' is not known" in missing.what
    assert "own.toml: not a TOML file" in broken.what
    assert "the agent does not start with it" in broken.step


@pytest.mark.parametrize(("dialect", "outlet", "needs"), [
    ("hiveon", "modbus://127.0.0.1:9/1?coil=1", True), ("auradine", "modbus://127.0.0.1:9/1?coil=1", True),
    ("hiveon", "", False), ("goldshell", "modbus://127.0.0.1:9/1?coil=1", False),
])  # fmt: skip
def test_a_name_behind_a_login_needs_its_password_before_its_outlet_works(
    settings: Settings, dialect: str, outlet: str, needs: bool
) -> None:
    row = f"m1,127.0.0.1,4028,{dialect},S9,f1,r1,1,900,13,{outlet}"
    settings.site.inventory.write_text(f"{HEADER[:-1]},outlet\n{row}\n")
    steps = [finding.step for finding in files.inventory(settings) if finding.level is Level.BAD]
    assert steps == ([f"ballast-agent credentials set {dialect}"] if needs else [])


def test_outlets_that_cannot_be_used_or_do_not_answer(settings: Settings) -> None:
    assert list(outlets(settings, SystemClock())) == []
    cells = {
        "m1": ("luxos", "modbus://127.0.0.1/1?coil=70000"), "m2": ("luxos", "http://127.0.0.1/1?pdu=nobodys"),
        "m3": ("innosilicon", "modbus://127.0.0.1:9/1?coil=3"),
    }  # fmt: skip
    rows = [
        f"{name},127.0.0.{place},4028,{dialect},S9,f1,r1,{place},900,13,{cell}\n"
        for place, (name, (dialect, cell)) in enumerate(cells.items(), 1)
    ]
    settings.site.inventory.write_text(f"{HEADER[:-1]},outlet\n{''.join(rows)}")
    found = list(outlets(settings, SystemClock()))
    assert [(finding.level, finding.name) for finding in found] == [
        *((Level.BAD, "outlets"), (Level.WARN, "outlets"), (Level.BAD, "outlets"), (Level.BAD, "outlets")),
        (Level.OK, "outlets"),
    ]
    told = [finding.what for finding in found]
    assert "inventory.csv line 2: outlet" in told[0]
    assert "1 before miners that tell no name, so none is switched: m3" in told[1]
    assert "m2: inventory.csv: outlet: the PDU 'nobodys' is not known" in told[2]
    assert told[3].startswith("m3: 127.0.0.1:9: no connection")
    assert told[4] == "0 of 2 say whether they are on"


def test_orders_that_are_not_proven_are_counted_with_their_cause(settings: Settings) -> None:
    assert list(orders(settings, SystemClock())) == []
    connection = connect(settings.database)
    schema(connection)
    denied = MinerRecord(
        "m1", Verb.STOP, "c1", 1, "price", outcome=Outcome.UNVERIFIED, reason="access_denied", detail="code 45"
    )
    for record in (
        denied, replace(denied, miner_id="m2"), replace(denied, miner_id="m3", outcome=Outcome.COMPLETE),
        replace(denied, miner_id="m4", outcome=None), replace(denied, miner_id="m5", reason="already_idle"),
    ):  # fmt: skip
        connection.execute("INSERT INTO curtail_miners VALUES (?, ?)", (record.miner_id, to_json(record)))
    connection.close()
    found = one(orders(settings, SystemClock()), Level.BAD)
    assert (found.what, found.step) == (
        "2 not proven: stop: access_denied: m1, m2",
        "ballast-agent credentials set luxos, or enable its API on its own page (m1: code 45)",
    )


@pytest.mark.parametrize(
    ("verb", "reason", "detail", "step"),
    [
        (Verb.START, "garbled", "names neither MAC nor serial", "see ballast-agent poll 127.0.0.7 --raw"),
        (Verb.STOP, "unreachable", "no connection: is it on?", "look at its power, cable and address"),
        (Verb.STOP, "wiring_unchecked", "", "switch that outlet by hand"),
        (Verb.STOP, "of_a_later_version", "", "ballast-agent failsafe status looks at them"),
    ],
)
def test_an_order_that_is_not_proven_has_its_reasons_step_and_the_detail_behind_it(
    settings: Settings, verb: Verb, reason: str, detail: str, step: str
) -> None:
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    settings.site.inventory.write_text(f"{header}\nm1,127.0.0.7,4028,antminer,S19,f1,r1,1,3000,100\n")
    connection = connect(settings.database)
    schema(connection)
    record = MinerRecord("m1", verb, "c1", 1, "price", outcome=Outcome.UNVERIFIED, reason=reason, detail=detail)
    connection.execute("INSERT INTO curtail_miners VALUES ('m1', ?)", (to_json(record),))
    connection.close()
    told = one(orders(settings, SystemClock()), Level.BAD).step
    assert told.startswith(step)
    assert told.endswith(f" (m1: {detail})" if detail else told[-5:])
    if reason == "garbled":
        assert "give its group antminer credentials" in told


def test_what_a_failsafe_could_not_prove_counts_while_its_order_is_in_force(settings: Settings) -> None:
    clock = ManualClock(NOON, 1000.0)
    connection = connect(settings.database)
    schema(connection)
    assert one(orders(settings, clock), Level.OK).what == "none is unproven"
    overrides.write(connection, "by-hand-1", Verb.STOP, None, timedelta(hours=4), clock)
    told = [("m1", by_hand.UNPROVEN, "refused"), ("m2", by_hand.UNPROVEN, "x"), ("m2", by_hand.PROVEN, "idle")]
    told += [("m3", by_hand.UNPROVEN, "judged since")]
    by_hand.write_lines(connection, [by_hand.Line(NOON, "by-hand-1", *line) for line in told])
    later = MinerRecord("m3", Verb.STOP, "by-hand-1", 0, "override", outcome=Outcome.COMPLETE)
    connection.execute("INSERT INTO curtail_miners VALUES ('m3', ?)", (to_json(later),))
    connection.close()
    found = one(orders(settings, clock), Level.BAD)
    assert found.what == "1 not proven: stop: by hand: m1"
    assert found.step.startswith("ballast-agent failsafe status looks at them")
    assert found.step.endswith(" (m1: refused)")
    clock.advance(timedelta(hours=5).total_seconds())
    assert one(orders(settings, clock), Level.OK)


def test_each_liar_and_each_feeder_that_disagrees_is_a_cause_with_its_step(settings: Settings) -> None:
    assert list(liars(settings)) == []
    connection = connect(settings.database)
    schema(connection)
    assert one(liars(settings), Level.OK).name == "liars"
    liar = MinerRecord("m1", Verb.STOP, "c1", 1, "price", outcome=Outcome.UNVERIFIED, reason="feeder_did_not_drop")
    liar = replace(liar, lie=Lie.REPORTS_IDLE)
    woken = replace(liar, miner_id="m2", lie=Lie.NONE, woken=True, reason="")  # it has left the inventory
    for record in (liar, woken):
        connection.execute("INSERT INTO curtail_miners VALUES (?, ?)", (record.miner_id, to_json(record)))
    mark = Difference(1, Watts(3400), NOON).text()
    connection.execute("INSERT INTO curtail_marks VALUES (?, ?)", (mark_of("f1"), mark))
    connection.close()
    found = [(finding.level, finding.name, finding.what, finding.step) for finding in liars(settings)]
    assert found[0] == (
        Level.BAD,
        "liars",
        "m1 in rack r1: LIAR: it says it is off, but its feeder did not drop",
        "go to its rack, cut its outlet or breaker, then say failsafe off --miner m1 again",
    )
    assert found[1][:3] == (
        Level.WARN, "liars", "m2: it woke by itself under its stop, and was stopped again"
    )  # fmt: skip
    assert found[2][:3] == (
        Level.BAD,
        "feeders",
        "f1 draws 0.0034 MW more than its miners own up to, since 2026-11-24 12:00 UTC; open: m1",
    )
    assert found[2][3].startswith("measure its open miners at the rack")
    assert len(found) == 3


def test_a_look_that_hangs_costs_its_own_finding(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = threading.Event()
    monkeypatch.setattr(machine, "disk", lambda _: enough.wait(30))
    monkeypatch.setattr(examine, "_WITHIN_S", 0.5)
    found = {finding.name: finding for finding in examine.examine(settings, SystemClock())}
    enough.set()
    assert (found["disk"].level, found["disk"].what) == (Level.BAD, "not looked at within 0.5 s")
    assert found["inventory"].level is Level.OK


def test_a_file_that_a_failsafe_alone_has_written_is_sound_and_reported(settings: Settings) -> None:
    connection = connect(settings.database)
    schema(connection)
    connection.close()
    named = {finding.name for finding in daemon.reported(settings, ManualClock(NOON))}
    assert "backlog" in named
    assert one(files.database(settings), Level.OK)


def test_a_database_that_is_sound_broken_or_was_put_aside(settings: Settings) -> None:
    assert one(files.database(settings), Level.UNKNOWN)
    connect(settings.database).close()
    assert one(files.database(settings), Level.OK)
    settings.database.write_bytes(b"no database" * 500)
    assert "restart the agent" in one(files.database(settings), Level.BAD).step
    settings.database.unlink()
    settings.database.with_name("agent.db.broken-20261124T120000").touch()
    assert "put aside" in one(files.database(settings), Level.WARN).what


def test_a_daemon_dead_hung_deaf_or_of_another_version(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "systemctl start" in one(daemon.alive(settings), Level.BAD).step
    with StateLock(settings.site.state_dir):
        assert "listens to nobody" in one(daemon.alive(settings), Level.BAD).what
        monkeypatch.setattr(daemon, "_ask", lambda *_: {"version": "0.0.1"})
        assert "0.0.1 runs" in one(daemon.alive(settings), Level.WARN).what

        def hung(*_: object) -> None:
            raise TimedOut("the daemon says nothing for 3 s")

        monkeypatch.setattr(daemon, "_ask", hung)
        assert "--take-over" in one(daemon.alive(settings), Level.BAD).step
    with StateLock(settings.site.state_dir, "failsafe"):
        monkeypatch.undo()
        assert "is at work" in one(daemon.alive(settings), Level.WARN).what


def test_meters_that_are_silent_are_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_ask", lambda *_: {"meters": {"a": 1.0, "b": None, "c": 300.0}})
    assert one(daemon.metered(settings, ManualClock(NOON)), Level.BAD).what == "2 of 3 silent: b, c"


def test_link_clock_plan_and_the_reasons_of_miners(settings: Settings) -> None:
    from agent.app import _schemas
    from agent.storage import in_transaction

    connection: sqlite3.Connection = connect(settings.database)
    in_transaction(connection, _schemas)
    clock = ManualClock(NOON, 1000.0)
    miners = {"hashing": 9, "unknown (timeout)": 2, "unknown (access_denied)": 1}
    told = DaemonStatus("0.1.0", clock.boot, clock.mono, NOON, True, 200.0, miners, {}, "connection refused")
    write_status(settings.site.state_dir / "status.json", told)
    with StateLock(settings.site.state_dir):
        found = [finding for finding in daemon.reported(settings, clock) if finding.level is not Level.OK]
        assert [(finding.name, finding.level) for finding in found] == [
            ("link", Level.BAD),
            ("clock trust", Level.BAD),
            ("plan", Level.WARN),
            ("miners", Level.WARN),
            ("miners", Level.WARN),
        ]
        assert found[0].what == "up, the cloud was heard 0:03:20 ago: connection refused"
        assert {finding.what for finding in found[-2:]} == {"2 unknown (timeout)", "1 unknown (access_denied)"}
        clock.advance(timedelta(hours=1).total_seconds())
        first = next(iter(daemon.reported(settings, clock)))
        assert (first.name, first.what) == ("report", "the daemon last reported 1:00:00 ago")
    connection.close()


def test_the_command_fails_when_something_is_bad(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("doctor", "--json", "--config", str(settings.source))) == 1
    shown = json.loads(capsys.readouterr().out)
    assert {"name", "level", "what", "step"} == set(shown[0])


def test_a_journal_is_whole_broken_or_not_carried(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(journal.journal(settings)) == []
    with closing(connect(settings.database)) as connection:
        schema(connection)
        assert list(journal.journal(settings)) == []
        notes = [Note(NOON, ClockTrust.HELD, Kind.SENT, "m1", "the device said ok")] * 4
        Chain(lambda: "chain-1").append(connection, notes)
        assert one(journal.journal(settings), Level.OK).what == "5 entries, each follows from the one before"
        monkeypatch.setattr(journal, "_MANY_UNCARRIED", 4)
        assert "start the daemon" in one(journal.journal(settings), Level.WARN).step
        connection.execute("DROP TRIGGER curtail_chain_kept")
        connection.execute("UPDATE curtail_chain SET subject = 'm2' WHERE seq = 3")
    found = one(journal.journal(settings), Level.BAD)
    assert found.what == "broken: entry 3 is not what its hash was made of"
    assert "ballast journal SITE --verify" in found.step
