"""With the uplink cut, who stands at the site sees whom the agent has caught, whether its daemon lives or is dead."""

import json
import signal
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime

import pytest

from agent.local_curtail.doubts import stored_doubts
from agent.storage import connect_read_only
from simulator.link import Mode
from sitelink.types import NoticeCode
from tests.e2e.outside import journal_faults
from tests.e2e.test_agent_process import Stage, complete, stage, until
from tests.e2e.test_failsafe_process import chosen, failsafe

__all__ = ["stage"]
pytestmark = pytest.mark.slow


async def test_liars_and_feeders_that_disagree_are_seen_at_the_site(stage: Stage) -> None:
    await stage.start()
    await until(lambda: complete(stage))
    able = chosen(stage, 24)
    by_feeder = defaultdict(list)
    for place in stage.site.places:
        if place.miner_id in able:
            by_feeder[place.feeder_id].append(place.miner_id)
    (feeder, pretending), (_, (liar, *others)) = list(by_feeder.items())[:2]
    await stage.site.set_fault(pretending[0], "reports_idle")
    await stage.site.set_fault(liar, "ack_without_effect")
    stage.link.set_mode(Mode.CUT)
    code, told = await failsafe(stage, "off", "--miner", *pretending, liar, *others, "--for", "1h")
    assert code == 1, told
    feeders = {name: tuple(miners) for name, miners in by_feeder.items()}

    def found() -> bool:
        with closing(connect_read_only(stage.folder / "state" / "agent.db")) as file:
            doubts = stored_doubts(file, feeders)
        return any(each["feeder"] == feeder for each in doubts["feeders"]) and bool(doubts["miners"])

    await until(found)
    await seen(stage, liar, feeder, pretending[0])
    await stage.end(signal.SIGKILL)
    await seen(stage, liar, feeder, pretending[0])


async def test_what_a_failsafe_found_without_a_daemon_is_seen_handed_on_and_struck(stage: Stage) -> None:
    able = chosen(stage, 24)
    by_feeder = defaultdict(list)
    for place in stage.site.places:
        if place.miner_id in able:
            by_feeder[place.feeder_id].append(place.miner_id)
    (feeder, pretending), (_, (liar, *_)) = list(by_feeder.items())[:2]
    await stage.site.set_fault(pretending[0], "reports_idle")
    await stage.site.set_fault(liar, "ack_without_effect")
    code, told = await failsafe(stage, "off", "--miner", *pretending, liar, "--for", "1h")
    assert code == 1, told
    assert f"feeder {feeder} fell by" in told
    assert "no miner owns up to" in told
    await seen(stage, liar, feeder, pretending[0])
    begun = datetime.now(UTC)
    await stage.start()

    def handed_on() -> bool:
        subjects = {(notice.code, notice.subject) for notice in stage.cloud.items()[2] if notice.at < begun}
        return {(NoticeCode.LIAR_NAMED, liar), (NoticeCode.FEEDER_DISAGREES, feeder)} <= subjects

    await until(handed_on)

    def journalled() -> bool:
        told = {(entry.kind, entry.subject) for entry in stage.cloud.journal()}
        return {("stop_intent", liar), ("by_hand", liar), ("outcome", liar), ("liar_named", liar)} <= told

    await until(journalled)
    await stage.end(signal.SIGKILL)
    assert journal_faults(stage.folder / "state" / "agent.db", stage.cloud.journal()) == []
    await stage.site.set_fault(liar, None)
    await failsafe(stage, "off", "--miner", liar, "--for", "1h")
    _, told = await failsafe(stage, "status")
    assert "LIAR" not in next(line for line in told.splitlines() if line.startswith(liar)), told
    await stage.site.set_fault(pretending[0], None)
    await failsafe(stage, "release")
    _, told = await failsafe(stage, "status")
    assert "LIAR" not in told
    assert "own up to" not in told
    _, output, _ = await stage.tool("doctor", "--json", "--config", str(stage.config))
    assert not [item for item in json.loads(output) if item["level"] == "BAD" and item["name"] in {"liars", "feeders"}]


async def seen(stage: Stage, liar: str, feeder: str, suspect: str) -> None:
    """Check what each command shows of ``liar``, and of ``feeder`` where nobody but ``suspect`` pretends to be off."""
    _, told = await failsafe(stage, "status")
    line = next(line for line in told.splitlines() if line.startswith(liar))
    assert "LIAR: it said ok to its stop and hashes on" in line
    assert f"failsafe off --miner {liar} again" in line
    line = next(line for line in told.splitlines() if line.startswith(f"feeder {feeder} draws 0.00"))
    assert "MW more than its miners own up to, since 2" in line
    assert suspect in line.partition("; open: ")[2]
    _, output, _ = await stage.tool("failsafe", "status", "--json", "--config", str(stage.config))
    document = json.loads(output)
    assert {"ack_without_effect"} == {
        code for miner in document["miners"] for code in miner["doubts"] if miner["miner"] == liar
    }
    assert suspect in next(each["open"] for each in document["feeders"] if each["feeder"] == feeder)
    assert len(document["overrides"]) == 1
    code, output, _ = await stage.tool("doctor", "--json", "--config", str(stage.config))
    causes = [item for item in json.loads(output) if item["level"] == "BAD" and item["name"] in {"liars", "feeders"}]
    assert code == 1
    assert any(item["what"].startswith(liar) and f"--miner {liar}" in item["step"] for item in causes)
    assert any(item["what"].startswith(f"{feeder} draws") and "at the rack" in item["step"] for item in causes)
    _, output, _ = await stage.tool("journal", "--last", "200", "--config", str(stage.config))
    assert any(liar in line for line in output.splitlines() if "liar_named" in line)
    assert any(f"{feeder}: the feeder draws" in line for line in output.splitlines() if "feeder_disagrees" in line)
