"""One order from who answers to what is read back, over a scripted driver: what is sent, kept, repeated and said."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.client import Address
from agent.cgminer.control import HeldInMemory, MinerControl
from agent.cgminer.control.carry_out import DEADLINES_S, INSTEAD, carry_out
from agent.cgminer.control.driver import ReadBack, Result, Shown, Wanted
from agent.cgminer.observation import Observation
from agent.errors import (
    AccessDenied,
    AgentError,
    Garbled,
    Refused,
    SessionBusy,
    TimedOut,
    Transient,
    Unreachable,
    UnsupportedDevice,
    WrongDevice,
)
from sitelink.types import Evidence, MinerState, Outcome, Verb
from sitelink.units import Watts
from sitelink.verbs import ONCE

pytestmark = pytest.mark.agent

HASHING = Observation("luxos", MinerState.HASHING, power_w=Watts(3000.0), uptime_s=900)
DONE = ReadBack(Shown.DONE, Evidence.DEVICE_POWER, "power_below_idle")
PART = ReadBack(Shown.PART, Evidence.DEVICE_POWER, "power_above_idle")
NOT_YET = ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, "still_hashing")
STOP = Wanted(Verb.STOP)
REBOOT = Wanted(Verb.REBOOT)


class Stage:
    """A device and its driver, as scripted; ``events`` is what happened, in order."""

    address = Address("10.0.0.9", 4028)
    credentials = None

    def __init__(self, *shown: ReadBack | AgentError, sent: tuple[AgentError | None, ...] = (None,)) -> None:
        self.dialect = "luxos"
        self.names = ["m1"]
        self.events: list[str] = []
        self.shown = list(shown) or [DONE]
        self.sent = list(sent)
        self.verbs = frozenset(Verb) - {Verb.PASSWORD}
        self.before = HASHING
        self.former_error: AgentError | None = None
        self.content = b""
        self.kept: list[str] = []
        self.keep_error: AgentError | None = None
        self.now_s = 0.0
        self.judged_by: list[Observation] = []

    # ------------------------------------------------------------ a device

    def monotonic(self) -> float:
        return self.now_s

    async def identity(self) -> str:
        return self.names.pop(0) if len(self.names) > 1 else self.names[0]

    async def observe(self) -> Observation:
        return self.before

    # ------------------------------------------------------------ a driver

    async def former(self, device: object, wanted: Wanted) -> str:
        if self.former_error is not None:
            raise self.former_error
        return "normal"

    async def send(self, device: object, wanted: Wanted, former: str) -> bytes:
        self.events.append(f"sent {former}")
        error = self.sent.pop(0) if len(self.sent) > 1 else self.sent[0]
        if error is not None:
            raise error
        return self.content

    async def shows(self, device: object, wanted: Wanted, before: Observation) -> ReadBack:
        self.judged_by.append(before)
        found = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        if isinstance(found, AgentError):
            raise found
        return found

    # ------------------------------------------------------------ the world around

    async def keep(self, former: str) -> None:
        if self.keep_error is not None:
            raise self.keep_error
        self.kept.append(former)
        self.events.append(f"kept {former}")

    async def pause(self, seconds: float) -> None:
        self.now_s += seconds

    async def play(self, wanted: Wanted = STOP, *, kept: str = "") -> Result:
        return await carry_out(self, self, "m1", wanted, keep=self.keep, deadline_s=10.0, kept=kept, pause=self.pause)


ERRORS = (Unreachable("x"), TimedOut("x"), SessionBusy("x"), Garbled("x"), AccessDenied("x"), Refused("rule", "x"))


@given(
    verb=st.sampled_from(sorted(set(Verb) - {Verb.PASSWORD})),
    shown=st.lists(st.sampled_from([DONE, PART, NOT_YET, *ERRORS]), min_size=1, max_size=6),
    sent=st.lists(st.sampled_from([None, *ERRORS]), min_size=1, max_size=4),
    names=st.lists(st.sampled_from(["m1", "M1", "m2"]), min_size=1, max_size=3),
    kept=st.sampled_from(["", "low"]),
    content=st.sampled_from([b"", b"line"]),
)
async def test_whatever_happens_an_order_tells_no_more_than_it_saw(
    verb: Verb,
    shown: list[ReadBack | AgentError],
    sent: list[AgentError | None],
    names: list[str],
    kept: str,
    content: bytes,
) -> None:
    stage = Stage(*shown, sent=tuple(sent))
    stage.names, stage.content = list(names), content
    try:
        result = await stage.play(Wanted(verb), kept=kept)
    except AgentError:
        assert not [event for event in stage.events if event.startswith("sent")]
        return
    times = len([event for event in stage.events if event.startswith("sent")])
    assert names[0].lower() == "m1"
    assert not stage.events or stage.events[0].startswith("kept")
    assert times <= 1 or verb not in ONCE
    assert times == 0 or verb not in ONCE or not kept
    assert result.outcome is not Outcome.COMPLETE or DONE in shown or (verb is Verb.LOGS and content)
    assert result.outcome is not Outcome.PARTIAL or PART in shown
    refusals = {"access_denied", "rule"}
    assert result.outcome is not Outcome.REFUSED or result.reason in refusals
    assert result.reason


async def test_what_is_replaced_is_kept_before_the_order_goes_out() -> None:
    stage = Stage()
    result = await stage.play()
    assert stage.events == ["kept normal", "sent normal"]
    assert result == Result(Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_below_idle", former="normal")


async def test_nothing_is_sent_when_nothing_can_be_kept() -> None:
    stage = Stage()
    stage.keep_error = Transient("the disk is full")
    with pytest.raises(Transient):
        await stage.play()
    assert stage.events == []


async def test_another_miner_gets_nothing_and_is_named() -> None:
    stage = Stage()
    stage.names = ["m2"]
    with pytest.raises(WrongDevice, match="m2 answers where the inventory has m1"):
        await stage.play()
    assert stage.events == []


async def test_another_miner_that_answers_afterwards_proves_nothing() -> None:
    stage = Stage()
    stage.names = ["m1", "m2"]
    result = await stage.play()
    assert (result.outcome, result.evidence, result.reason) == (Outcome.UNVERIFIED, Evidence.NONE, "wrong_device")


async def test_an_order_is_not_sent_again_to_another_miner_that_has_taken_the_address() -> None:
    stage = Stage(NOT_YET, sent=(TimedOut("x"),))
    stage.names = ["m1", "m2"]
    result = await stage.play()
    assert result.outcome is Outcome.UNVERIFIED
    assert stage.events == ["kept normal", "sent normal"]


async def test_an_order_is_sent_again_once_its_miner_answers_again() -> None:
    stage = Stage(*[NOT_YET] * 7, DONE, sent=(TimedOut("x"), None))
    stage.names = ["m1", "m2", "m1"]
    assert (await stage.play()).outcome is Outcome.COMPLETE
    assert stage.events == ["kept normal", "sent normal", "sent normal"]


async def test_another_miner_that_draws_less_is_no_part_of_the_effect() -> None:
    stage = Stage(PART)
    stage.names = ["m1", "m2"]
    result = await stage.play()
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "wrong_device")
    assert "m2 answers where the inventory has m1" in result.detail


async def test_a_miner_that_is_silent_when_it_is_named_again_is_asked_once_more() -> None:
    stage = Stage()
    answers: list[str | AgentError] = ["m1", Unreachable("x"), "m1"]

    async def identity() -> str:
        found = answers.pop(0)
        if isinstance(found, AgentError):
            raise found
        return found

    stage.identity = identity  # type: ignore[method-assign]
    assert (await stage.play()).outcome is Outcome.COMPLETE
    assert answers == []


@pytest.mark.parametrize("verb", list(Verb))
async def test_a_verb_the_vendor_does_not_document_is_unsupported_and_names_what_to_use(verb: Verb) -> None:
    stage = Stage()
    stage.verbs = frozenset()
    stage.names = ["whoever"]
    result = await stage.play(Wanted(verb))
    assert (result.outcome, result.reason, stage.events) == (Outcome.REFUSED, "unsupported", [])
    assert INSTEAD[verb] in result.detail
    assert f"luxos firmware has no {verb.value} command" in result.detail


@pytest.mark.parametrize("error", [Unreachable("x"), TimedOut("x"), SessionBusy("x"), Transient("x")])
async def test_a_desired_state_that_found_no_answer_is_sent_again(error: AgentError) -> None:
    stage = Stage(NOT_YET, NOT_YET, NOT_YET, NOT_YET, DONE, sent=(error, None))
    assert (await stage.play()).outcome is Outcome.COMPLETE
    assert stage.events.count("sent normal") == 2


async def test_an_order_that_took_effect_though_its_answer_was_lost_is_complete() -> None:
    stage = Stage(DONE, sent=(TimedOut("x"),))
    assert (await stage.play()).outcome is Outcome.COMPLETE
    assert stage.events.count("sent normal") == 1


async def test_an_answer_that_cannot_be_read_is_no_answer() -> None:
    assert (await Stage(DONE, sent=(Garbled("x"),)).play()).outcome is Outcome.COMPLETE
    result = await Stage(NOT_YET, sent=(Garbled("what it said"),)).play()
    assert (result.outcome, result.reason, result.detail) == (Outcome.UNVERIFIED, "garbled", "what it said")


@pytest.mark.parametrize("verb", [Verb.REBOOT, Verb.FIRMWARE])
async def test_what_is_done_once_is_not_sent_again_but_looked_at(verb: Verb) -> None:
    stage = Stage(NOT_YET, NOT_YET, NOT_YET, NOT_YET, DONE, sent=(TimedOut("x"),))
    assert (await stage.play(Wanted(verb))).outcome is Outcome.COMPLETE
    assert len([event for event in stage.events if event.startswith("sent")]) == 1


async def test_a_version_that_runs_already_ends_firmware_with_nothing_kept_or_sent() -> None:
    stage = Stage(DONE)
    result = await stage.play(Wanted(Verb.FIRMWARE, {"version": "2"}))
    assert (result.outcome, result.reason, stage.events) == (Outcome.COMPLETE, "already_in_force", [])


async def test_a_version_that_cannot_be_read_sends_no_firmware() -> None:
    stage = Stage(TimedOut("x"))
    with pytest.raises(TimedOut):
        await stage.play(Wanted(Verb.FIRMWARE, {"version": "2"}))
    assert stage.events == []


@pytest.mark.parametrize(("former", "reason"), [("1", "version_in_force"), ("2", "outcome_unknown")])
async def test_after_a_kill_the_wanted_version_counts_where_it_was_another_or_the_miner_restarted(
    former: str, reason: str
) -> None:
    in_force, not_reset = replace(DONE, reason="version_in_force"), replace(NOT_YET, reason="uptime_not_reset")
    kept = json.dumps({"uptime_s": 900, "former": json.dumps({"version": former})})
    result = await Stage(in_force, not_reset).play(Wanted(Verb.FIRMWARE, {"version": "2"}), kept=kept)
    assert result.reason == reason
    result = await Stage(in_force).play(Wanted(Verb.FIRMWARE, {"version": "2"}), kept=kept)
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "version_in_force")


async def test_a_busy_device_did_not_take_an_order_that_is_sent_once() -> None:
    stage = Stage(NOT_YET, sent=(SessionBusy("in other hands"),))
    result = await stage.play(REBOOT)
    assert (result.outcome, result.reason, result.detail) == (Outcome.UNVERIFIED, "session_busy", "in other hands")
    assert stage.now_s == 0.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AccessDenied("code 45: enable the write API"), "access_denied"),
        (UnsupportedDevice("code 14"), "unsupported"),
        (Refused("miner_stopped", "it is stopped"), "miner_stopped"),
    ],
)
async def test_a_refusal_is_told_with_its_remedy_and_never_repeated(error: AgentError, reason: str) -> None:
    stage = Stage(NOT_YET, sent=(error,))
    result = await stage.play()
    assert (result.outcome, result.reason, result.detail) == (Outcome.REFUSED, reason, str(error))
    assert result.former == "normal"
    assert stage.events == ["kept normal", "sent normal"]


async def test_a_refusal_of_a_repeated_order_ends_it_too() -> None:
    stage = Stage(NOT_YET, sent=(TimedOut("x"), AccessDenied("no")))
    assert (await stage.play()).reason == "access_denied"


async def test_an_ack_without_effect_is_unverified_at_the_deadline_with_what_was_seen() -> None:
    stage = Stage(NOT_YET)
    result = await stage.play()
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "still_hashing")
    assert stage.now_s == 10.0
    assert stage.events.count("sent normal") == 1


async def test_an_order_that_was_never_answered_says_so() -> None:
    stage = Stage(NOT_YET, sent=(TimedOut("no answer within 2 s"),))
    result = await stage.play()
    assert (result.reason, result.detail) == ("no_reply", "no answer within 2 s")
    assert stage.events.count("sent normal") == 4


async def test_half_an_effect_is_partial_and_only_at_the_deadline() -> None:
    assert (await Stage(PART, DONE).play()).outcome is Outcome.COMPLETE
    result = await Stage(PART).play()
    assert (result.outcome, result.reason) == (Outcome.PARTIAL, "power_above_idle")


@pytest.mark.parametrize(
    ("error", "reason"), [(Unreachable("x"), "unreachable"), (TimedOut("x"), "timeout"), (Garbled("x"), "garbled")]
)
async def test_a_miner_that_cannot_be_looked_at_proves_nothing(error: AgentError, reason: str) -> None:
    result = await Stage(PART, error).play()
    assert (result.outcome, result.evidence, result.reason) == (Outcome.UNVERIFIED, Evidence.NONE, reason)


@pytest.mark.parametrize("verb", [Verb.LIMIT, Verb.BLINK])
async def test_a_setting_that_shows_already_is_not_sent(verb: Verb) -> None:
    stage = Stage(DONE)
    result = await stage.play(Wanted(verb))
    assert (result.outcome, stage.events, stage.kept) == (Outcome.COMPLETE, [], [])


async def test_pools_are_sent_though_they_show_for_their_passwords_do_not() -> None:
    stage = Stage(DONE)
    assert (await stage.play(Wanted(Verb.POOLS))).outcome is Outcome.COMPLETE
    assert "sent normal" in stage.events


async def test_what_an_interrupted_attempt_kept_is_not_replaced_and_its_order_sent_again() -> None:
    stage = Stage(DONE)
    result = await stage.play(Wanted(Verb.LIMIT), kept="low")
    assert stage.events == ["kept low", "sent low"]
    assert result.former == "low"


async def test_an_interrupted_reboot_is_judged_by_the_uptime_it_kept_and_not_sent_again() -> None:
    first = Stage()
    await first.play(REBOOT)
    (kept,) = first.kept
    assert json.loads(kept) == {"uptime_s": 900, "former": "normal"}
    stage = Stage(NOT_YET, DONE)
    stage.before = replace(HASHING, uptime_s=5)
    assert (await stage.play(REBOOT, kept=kept)).outcome is Outcome.COMPLETE
    assert stage.events == []
    assert {seen.uptime_s for seen in stage.judged_by} == {900}


@pytest.mark.parametrize("kept", ['{"uptime_s": 900}', "not json", "[]"])
async def test_an_interrupted_order_whose_effect_does_not_show_stays_unknown(kept: str) -> None:
    stage = Stage(NOT_YET)
    result = await stage.play(REBOOT, kept=kept)
    assert (result.outcome, result.reason, stage.events) == (Outcome.UNVERIFIED, "outcome_unknown", [])


async def test_logs_are_handed_on_and_none_are_said_to_be_none() -> None:
    stage = Stage()
    stage.content = b"line"
    result = await stage.play(Wanted(Verb.LOGS))
    assert (result.outcome, result.reason, result.content) == (Outcome.COMPLETE, "logs_received", b"line")
    assert (await Stage().play(Wanted(Verb.LOGS))).reason == "no_logs"
    lost = Stage(sent=(Unreachable("broke off"),))
    result = await lost.play(Wanted(Verb.LOGS))
    assert (result.outcome, result.reason, lost.now_s) == (Outcome.UNVERIFIED, "no_reply", 0.0)


def test_every_verb_has_a_deadline_and_a_way_out() -> None:
    assert set(DEADLINES_S) == set(INSTEAD) == set(Verb)


def test_no_secret_shows() -> None:
    assert "hush" not in repr(Wanted(Verb.PASSWORD, secret="hush", image=b"hush"))


def control(stage: Stage, former: HeldInMemory | None = None, drivers: Callable[[str], object] | None = None):
    return MinerControl(stage, "m1", former, drivers or (lambda _: stage))


async def test_a_stop_keeps_what_its_start_restores() -> None:
    stage = Stage()
    miner = control(stage)
    await miner.stop()
    await miner.start()
    assert stage.events == ["sent normal", "sent normal"]


async def test_a_stop_waits_for_what_cannot_be_kept_and_a_start_does_not() -> None:
    class Full(HeldInMemory):
        async def remember(self, miner_id: str, configuration: str) -> None:
            raise Transient("the disk is full")

    stage = Stage()
    miner = control(stage, Full())
    with pytest.raises(Transient):
        await miner.stop()
    assert stage.events == []
    await miner.start()
    assert stage.events == ["sent "]


async def test_a_stop_goes_out_though_the_configuration_cannot_be_read() -> None:
    stage = Stage()
    stage.former_error = Garbled("x")
    await control(stage).stop()
    assert stage.events == ["sent "]
    stage.former_error = Unreachable("x")
    with pytest.raises(Unreachable):
        await control(stage).stop()


async def test_a_stop_that_is_carried_out_is_kept_for_the_start_as_well() -> None:
    stage, former = Stage(), HeldInMemory()
    miner = control(stage, former)
    assert (await miner.carry_out(STOP, stage.keep)).outcome is Outcome.COMPLETE
    assert (await former.recall("m1"), stage.kept) == ("normal", ["normal"])
    await miner.carry_out(Wanted(Verb.START), stage.keep)
    assert stage.events[-2:] == ["kept normal", "sent normal"]


async def test_orders_to_one_miner_wait_for_each_other_and_looking_holds_up_none() -> None:
    stage = Stage()
    under_way = asyncio.Event()
    go_on = asyncio.Event()
    plain = stage.send

    async def slow(device: object, wanted: Wanted, former: str) -> bytes:
        under_way.set()
        await go_on.wait()
        return await plain(device, wanted, former)

    stage.send = slow  # type: ignore[method-assign]
    miner = control(stage)
    async with asyncio.TaskGroup() as group:
        group.create_task(miner.stop())
        await under_way.wait()
        group.create_task(miner.start())
        assert await miner.observe() == HASHING
        assert stage.events == []
        go_on.set()
    assert len(stage.events) == 2


class Slow(Stage):
    """A stage whose once-only orders never come to their end by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way, self.go_on = asyncio.Event(), asyncio.Event()

    async def send(self, device: object, wanted: Wanted, former: str) -> bytes:
        if wanted.verb in ONCE:
            self.under_way.set()
            await self.go_on.wait()
        self.events.append(wanted.verb.value)
        return self.content


async def test_a_log_gives_way_to_a_switch_and_none_begins_before_it_is_sent() -> None:
    stage = Slow()
    miner = control(stage)
    fetching = asyncio.create_task(miner.carry_out(Wanted(Verb.LOGS), stage.keep))
    await stage.under_way.wait()
    kept = stage.keep

    async def keep_and_ask_for_the_log(former: str) -> None:
        await kept(former)
        assert (await miner.carry_out(Wanted(Verb.LOGS), kept)).reason == "broken_off"

    await miner.carry_out(STOP, keep_and_ask_for_the_log)
    assert (await fetching).reason == "broken_off"
    assert "stop" in stage.events and "logs" not in stage.events
    stage.go_on.set()
    stage.content = b"line"
    assert (await miner.carry_out(Wanted(Verb.LOGS), stage.keep)).content == b"line"


async def test_a_look_before_a_switch_ends_a_log_and_no_look_ends_firmware() -> None:
    stage = Slow()
    miner = control(stage)
    fetching = asyncio.create_task(miner.carry_out(Wanted(Verb.LOGS), stage.keep))
    await stage.under_way.wait()
    await asyncio.gather(miner.make_way(), miner.make_way())
    assert (await fetching).reason == "broken_off"
    await miner.make_way()
    stage.shown = [NOT_YET, DONE]  # the version is another one first
    flashing = asyncio.create_task(miner.carry_out(Wanted(Verb.FIRMWARE), stage.keep))
    stage.under_way.clear()
    await stage.under_way.wait()
    await miner.make_way()
    stopping = asyncio.create_task(miner.stop())
    await asyncio.sleep(0.01)
    assert not flashing.done() and not stopping.done()
    stage.go_on.set()
    assert (await flashing).outcome is Outcome.COMPLETE
    await stopping
    assert [event for event in stage.events if "kept" not in event] == ["firmware", "stop"]


async def test_whoever_asked_for_a_log_may_still_be_ended() -> None:
    stage = Slow()
    fetching = asyncio.create_task(control(stage).carry_out(Wanted(Verb.LOGS), stage.keep))
    await stage.under_way.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching


async def test_a_firmware_that_is_not_known_yet_is_for_later_and_one_without_driver_is_not() -> None:
    stage = Stage()
    stage.dialect = "auto"
    miner = control(stage, drivers=lambda dialect: None if dialect == "auto" else stage)
    with pytest.raises(Transient, match="does not say yet which firmware"):
        await miner.carry_out(STOP, stage.keep)
    stage.dialect = "luxos"
    await miner.stop()
    stage.dialect = "exotic"
    with pytest.raises(UnsupportedDevice, match="cannot stop by us"):
        await control(stage, drivers=lambda _: None).carry_out(STOP, stage.keep)


async def test_a_verb_without_command_is_refused_to_those_who_just_order() -> None:
    stage = Stage()
    stage.verbs = frozenset({Verb.POOLS})
    with pytest.raises(UnsupportedDevice, match="has no stop command; give it an outlet"):
        await control(stage).stop()
    assert stage.events == []
