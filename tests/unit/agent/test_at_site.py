"""`plan show` and `journal` tell what the file holds when no daemon answers, and the daemon's word when one does."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import at_site
from agent.at_site import Site
from agent.buffer import schema as buffer_schema
from agent.cli import main
from agent.errors import BadInput
from agent.local_curtail import by_hand, inbox, overrides, records
from agent.local_curtail.by_hand import Line
from agent.local_curtail.chain import Chain, Kind, Note
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.schema import schema
from agent.local_curtail.standing import lines
from agent.settings import Settings, load_settings
from agent.storage import connect, in_transaction
from sitelink.clock import ManualClock, SystemClock
from sitelink.orders import write_plan
from sitelink.types import ClockTrust, Curtailment, CurtailmentCause, Fallback, Interval, Ramp, SitePlan, Verb
from sitelink.units import Watts

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RAMP = Ramp(Watts(0), 0.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    (tmp_path / "state").mkdir()
    found = load_settings(tmp_path / "agent.toml", {})
    cut = Curtailment("c-1", CurtailmentCause.PRICE, Interval(NOON, NOON + timedelta(hours=1)), ("m1",), RAMP, RAMP)
    valid = Interval(NOON - timedelta(hours=1), NOON + timedelta(hours=2))
    plan = SitePlan("p-1", "pecos-1", "a", 1, 4, 7, NOON, valid, Fallback.RUN, (cut,))
    clock = ManualClock(NOON, 100.0)
    record = MinerRecord("m1", Verb.STOP, "c-1", 7, "price", Phase.SENT, sent_at=NOON + timedelta(seconds=3))
    with closing(connect(found.database)) as connection:
        for work in (
            buffer_schema,
            schema,
            lambda db: inbox.hold_plan(db, inbox.HeldPlan(1, 4, write_plan(plan)), NOON),
            lambda db: overrides.write(db, "failsafe-1", Verb.STOP, {"m2"}, timedelta(hours=1), clock),
            lambda db: by_hand.write_lines(db, [Line(NOON, "failsafe-2", "", by_hand.RELEASED, "for all miners")]),
            lambda db: db.execute("INSERT INTO curtail_miners VALUES ('m1', ?)", (records.to_json(record),)),
            lambda db: db.execute(
                "INSERT INTO curtail_acks VALUES ('c-0', 'm9', 'stop', 'complete', 'feeder_meter', 'power_below_idle',"
                " ?, 3000, 40)",
                ((NOON - timedelta(hours=1)).timestamp() * 1e6,),
            ),
        ):
            in_transaction(connection, work)
    return found


def test_a_plan_its_window_and_what_applies_are_read_from_the_file(settings: Settings) -> None:
    document, source = Site(settings, ManualClock(NOON, 100.0)).standing()
    assert "nobody listens" in source
    assert document["plan"]["windows"][0]["now"] is True
    shown = "\n".join(lines(document))
    assert "clock       2026-11-24T12:00:00 UTC, untrusted" in shown
    assert "p-1, revision 7, valid until 2026-11-24T14:00:00 UTC, then run" in shown
    assert "1 miners, price, c-1  NOW" in shown
    assert "override    stop of 1 miners until 2026-11-24T13:00:00 UTC, failsafe-1" in shown
    assert "applies     1 miners: stop, price" in shown


def test_the_living_daemons_word_goes_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Site, "_asked", lambda *_: [{"result": {"now": "its own"}}])
    assert Site(settings, SystemClock()).standing() == ({"now": "its own"}, at_site.DAEMON)


def test_the_journal_is_in_order_and_cut_from_its_end(settings: Settings) -> None:
    events = Site(settings, SystemClock()).history(50)
    assert [(event["event"], event["order_id"], event["miner_id"]) for event in events] == [
        ("complete", "c-0", "m9"),
        ("ordered", "", ""),
        ("released", "failsafe-2", ""),
        ("ordered", "failsafe-1", ""),
        ("sending", "c-1", "m1"),
    ]
    assert [event["event"] for event in Site(settings, SystemClock()).history(1)] == ["sending"]


def test_the_commands_print_it(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("journal", "--json", "--last", "1", "--config", str(settings.source))) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "stop, may have been sent, not judged yet (price)"
    assert main(("journal", "--config", str(settings.source))) == 0
    assert "stop: power_below_idle (feeder_meter)" in capsys.readouterr().out
    assert main(("plan", "show", "--json", "--config", str(settings.source))) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["expired"] is True


def test_the_chain_is_shown_and_verified_without_a_daemon(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    verify = ("journal", "--verify", "--config", str(settings.source))
    assert main(verify) == 0
    assert "no entry has been written yet" in capsys.readouterr().out
    note = Note(NOON, ClockTrust.HELD, Kind.SENT, "m1", "stop under c-1: the device said ok")
    with closing(connect(settings.database)) as connection:
        in_transaction(connection, lambda db: Chain(lambda: "chain-1").append(db, [note, note]))
    assert main(verify) == 0
    assert "whole     3 entries kept, numbers 1 to 3; chain chain-1" in capsys.readouterr().out
    assert main(("journal", "--chain", "--last", "1", "--json", "--config", str(settings.source))) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["seq"], shown["kind"], shown["subject"], shown["trust"]) == (3, "sent", "m1", "held")
    assert main(("journal", "--chain", "--config", str(settings.source))) == 0
    assert "stop under c-1: the device said ok" in capsys.readouterr().out
    with closing(connect(settings.database)) as connection:
        connection.execute("DROP TRIGGER curtail_chain_kept")
        connection.execute("UPDATE curtail_chain SET detail = 'the device refused' WHERE seq = 2")
    assert main(verify) == 1
    assert "broken    entry 2 is not what its hash was made of" in capsys.readouterr().out
    assert main((*verify, "--json")) == 1
    assert json.loads(capsys.readouterr().out)["whole"] is False


def test_a_file_of_a_version_without_a_chain_is_empty_and_no_error(settings: Settings) -> None:
    with closing(connect(settings.database)) as connection:
        connection.execute("DROP TABLE curtail_chain")
    assert Site(settings, SystemClock()).journal().entries == 0
    assert Site(settings, SystemClock()).entries(5) == []


def test_a_file_that_cannot_be_read_is_told(settings: Settings) -> None:
    settings.database.write_bytes(b"no database" * 500)
    with pytest.raises(BadInput, match=r"agent\.db: cannot be read"):
        Site(settings, SystemClock()).standing()
    with pytest.raises(BadInput, match=r"agent\.db: cannot be read"):
        Site(settings, SystemClock()).history(5)
