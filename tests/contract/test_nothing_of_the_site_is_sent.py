"""No address, password, group or outlet of a site is in the bytes that leave it, whatever its miners do."""

import random
import zlib
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.cgminer.client import Address
from agent.cgminer.credentials import Credentials
from agent.fleet import Fleet
from agent.poller import Poller
from agent.precedence import Precedence
from agent.settings import load_settings
from agent.vault import Vault
from sitelink import codec
from sitelink.clock import ManualClock
from sitelink.inventory import MinerEntry
from sitelink.types import Ack, Batch, BatchBody, BatchKind, Heartbeat, Hello, MeterSample, Notice, Reading
from tests.contract.fake_miner import FakeMiner, Speak, serving
from tests.contract.test_discover import drip, hold, says
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

HOST = "127.93.0.7"
SECRETS = (HOST, "s3cret-pw", "ops-user", "hall-b", "10.9.8.7", "outlet", "127.93")
KNOWN_TO_THE_CLOUD = {
    Reading: "miner_id read_at state reason hashrate_ths power_w power_source board_temp_c chip_temp_c fan_rpm accepted "
    "rejected uptime_s",
    MeterSample: "meter_id read_at power_w energy_wh",
    Ack: "ack_id order_id plan_revision miner_id verb outcome evidence reason at power_before_w power_after_w",
    Notice: "notice_id at code subject detail",
}


@pytest.mark.parametrize(
    "speak",
    [
        FakeMiner(dict(made.luxos())).speak,
        FakeMiner({}).speak,
        says(b""),
        says(f'{{"STATUS":[{{"STATUS":"E","Code":45,"Msg":"{HOST} denied"}}],"id":1}}'.encode()),
        says(f"<html>{HOST}</html>".encode()),
        hold,
        drip,
        None,
    ],
    ids=["well", "unknown", "closes", "denied", "html", "silent", "drip", "absent"],
)
async def test_what_is_read_of_a_miner_is_sent_without_where_and_how(tmp_path: Path, speak: Speak | None) -> None:
    (tmp_path / "agent.toml").write_text(
        '[site]\nsite_id = "pecos-1"\n[poll]\nconnect_s = 0.2\nfirst_byte_s = 0.2\ntotal_s = 0.4\n'
    )
    settings = load_settings(tmp_path / "agent.toml", {})
    vault = Vault.open(settings)
    vault.put("hall-b", Credentials("ops-user", "s3cret-pw"))
    clock = ManualClock(datetime(2026, 6, 1, tzinfo=UTC))
    sent: list[Reading] = []

    async def poll(port: int) -> None:
        entry = MinerEntry(
            "62:f7:5e:00:00:01", HOST, port, "luxos", "S19", "F1", "R1", 1, None, None, 80, "hall-b",
            "http://10.9.8.7/outlet/1",
        )  # fmt: skip
        device = Fleet(settings, clock, vault).devices((entry,))[entry.miner_id]
        assert (device.address, device.credentials) == (Address(HOST, port), Credentials("ops-user", "s3cret-pw"))
        poller = Poller(
            {entry.miner_id: device}, clock, random.Random(1), sent.append,
            interval_s=60, concurrency=1, deadline_s=3, precedence=Precedence(clock),
        )  # fmt: skip
        await poller.poll(entry.miner_id)

    if speak is None:
        await poll(9)
    else:
        async with serving(speak, HOST) as address:
            await poll(address.port)
    sent_at = datetime(2026, 6, 1, tzinfo=UTC)
    payload = codec.pack(BatchBody(readings=tuple(sent)))
    batch = codec.encode_up(Batch("pecos-1", "e", 0, 1, BatchKind.TELEMETRY, sent_at, payload))
    told = batch.SerializeToString() + zlib.decompress(payload) + repr(codec.unpack(payload)).encode()
    assert b"62:f7:5e:00:00:01" in told
    for secret in SECRETS:
        assert secret.encode() not in told


def test_what_is_sent_has_no_room_for_more() -> None:
    """A field added here is a decision about what leaves the site."""
    assert {kind: " ".join(field.name for field in fields(kind)) for kind in KNOWN_TO_THE_CLOUD} == KNOWN_TO_THE_CLOUD
    for kind in (Hello, Heartbeat):
        assert not {field.name for field in fields(kind)} & {"host", "address", "password", "credentials", "outlet"}
