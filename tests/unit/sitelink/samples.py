"""Sample values for the wire package's tests: one of every kind, with every optional field both ways."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sitelink.types import (
    Ack,
    BatchBody,
    ClockTrust,
    Command,
    Curtailment,
    CurtailmentCause,
    Evidence,
    Fallback,
    Heartbeat,
    Hello,
    Interval,
    JournalEntry,
    MeterSample,
    MinerState,
    Notice,
    NoticeCode,
    OrderNumber,
    Outcome,
    PowerSource,
    Ramp,
    Reading,
    Reason,
    SignedTime,
    SitePlan,
    Verb,
)
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

FULL_READING = Reading(
    miner_id="c2:11:22:33:44:55",
    read_at=NOON + timedelta(milliseconds=250),
    state=MinerState.HASHING,
    hashrate_ths=TeraHashPerSecond(104.5),
    power_w=Watts(3250.0),
    power_source=PowerSource.DEVICE,
    board_temp_c=Celsius(62.0),
    chip_temp_c=Celsius(78.5),
    fan_rpm=RevolutionsPerMinute(5880),
    accepted=1200,
    rejected=3,
    uptime_s=86400,
)
SILENT_READING = Reading(
    miner_id="c2:11:22:33:44:56",
    read_at=NOON + timedelta(seconds=1),
    state=MinerState.UNKNOWN,
    reason=Reason.UNREACHABLE,
)
BODY = BatchBody(
    readings=(FULL_READING, SILENT_READING),
    meters=(
        MeterSample("site", NOON, Watts(850_000.5), 1234.5),
        MeterSample("feeder-1", NOON, None),
    ),
    acks=(
        Ack(
            ack_id="a1",
            order_id="cur-1",
            plan_revision=4,
            miner_id="c2:11:22:33:44:55",
            verb=Verb.STOP,
            outcome=Outcome.COMPLETE,
            evidence=Evidence.FEEDER_METER,
            reason="power_below_idle",
            at=NOON + timedelta(microseconds=1),
            power_before_w=Watts(3250.0),
            power_after_w=Watts(41.0),
        ),
    ),
    journal=(
        JournalEntry("chain-1", 7, 1_764_000_000_000_000, "held", "sent", "m1", "it said ok", bytes(32), b"\1" * 32),
    ),
    notices=(
        Notice(
            "n1",
            NOON,
            NoticeCode.LIAR_NAMED,
            "c2:11:22:33:44:57",
            "feeder-1 did not drop",
        ),
    ),
)
PLAN = SitePlan(
    plan_id="plan-1",
    site_id="pecos-1",
    agent_id="agent-1",
    signing_epoch=1,
    sequence=7,
    revision=4,
    issued_at=NOON,
    valid=Interval(NOON, NOON + timedelta(hours=2)),
    fallback=Fallback.RUN,
    curtailments=(
        Curtailment(
            curtailment_id="cur-1",
            cause=CurtailmentCause.PRICE,
            interval=Interval(NOON + timedelta(minutes=10), NOON + timedelta(minutes=40)),
            miner_ids=("c2:11:22:33:44:55", "c2:11:22:33:44:57"),
            ramp_down=Ramp(Watts(50_000.0), 1.0),
            ramp_up=Ramp(Watts(25_000.0), 1.5),
            target_power_w=Watts(400_000.0),
        ),
    ),
)
COMMAND = Command(
    command_id="cmd-1",
    site_id="pecos-1",
    agent_id="agent-1",
    signing_epoch=1,
    sequence=8,
    not_before=NOON,
    expires_at=NOON + timedelta(minutes=5),
    verb=Verb.STOP,
    miner_ids=("c2:11:22:33:44:55",),
    reason="breaker work in C1",
)
SIGNED_TIME = SignedTime("pecos-1", "nonce-1", NOON + timedelta(microseconds=123456))
HELLO = Hello("pecos-1", "agent-1", "0.1.0", "e1", 42, 4, ("k1", "k2"))
FULL_HELLO = replace(HELLO, highest=OrderNumber(2, 17), highest_order_id="p17", instance_id="i-1", generation=3)
HEARTBEAT = Heartbeat("nonce-1", 4, ClockTrust.HELD, 3, 4096, 42)
