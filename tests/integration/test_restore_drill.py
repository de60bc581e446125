"""The restore drill: the cloud's database is put back from a real copy two days old; the site's journal is the real one.

day 0: orders, copy ---- two days of orders, some never delivered ---- copy put back: orders again, no old one
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.local_curtail.journal import Journal
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.schema import schema
from agent.local_curtail.site_time import SiteTime
from agent.storage import ThreadWriter
from cloud.core.access import Principal
from cloud.hosting import orders, service
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.infra.db import Database
from cloud.infra.postgres import EmbeddedPostgres
from cloud.infra.signer_client import SignerClient
from sitelink.clock import ManualClock
from sitelink.orders import write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import Domain, Envelope, Fallback, Interval, SignedTime, SitePlan, Verb
from sitelink.units import Watts
from tests.integration.test_site_link import signer
from tests.integration.test_trust import new_key
from tests.telemetry import START
from tests.veiled import Veiled

__all__ = ["signer"]

pytestmark = pytest.mark.timeout(90)
SITE, TIME_KEY = "pecos-1", PrivateKey.generate()


class NoOutbox:
    def append_in(self, connection: object, body: object) -> None:
        pass


@pytest.fixture
def backup(cluster: EmbeddedPostgres, database_name: str) -> Iterator[str]:
    yield f"{database_name}_backup"
    cluster.drop_database(f"{database_name}_backup")


async def journal_of(folder: Path, agent_id: str, signer: SignerClient) -> tuple[Journal, ThreadWriter]:
    writer = ThreadWriter(folder / "agent.db")
    await writer.run(schema)
    site_time = SiteTime(writer, ManualClock(START), SITE, KeyRing((TIME_KEY.public_bytes,)))
    now = START + timedelta(days=2)
    await site_time.learn(TIME_KEY.sign(Domain.TIME, write_time(SignedTime(SITE, "n", now))), 0.0, 0.0)
    rules = SiteRules(SITE, agent_id, frozenset(), 3600.0, Watts(0), Fallback.RUN, 0.0)
    miners = {f"m{place}": SiteMiner(f"m{place}", "F1", None, controllable=True) for place in range(9)}
    ring = KeyRing((signer.public_key(),))
    journal = Journal(writer, NoOutbox(), site_time, lambda: "id", rules, miners, ring, lambda: None, Veiled())
    await journal.load()
    return journal, writer


def dispatch(database: Database, principal: Principal, signer: SignerClient, revision: int) -> None:
    now = database.clock.now()
    valid = Interval(now - timedelta(minutes=1), now + timedelta(days=3))
    plan = SitePlan(f"plan-{revision}-{now}", SITE, "", 0, 0, revision, now, valid, Fallback.RUN, ())
    with database.unit_of_work(principal) as uow:
        service.dispatch_plan(uow, plan, signer)


def stop(database: Database, principal: Principal, signer: SignerClient, miner_id: str) -> None:
    with database.unit_of_work(principal) as uow:
        service.queue_command(uow, SITE, Verb.STOP, (miner_id,), "drill", signer, valid_for=timedelta(hours=12))


def waiting(database: Database, principal: Principal, agent_id: str) -> list[Envelope]:
    with database.unit_of_work(principal) as uow:
        found = orders.pending(uow, SITE, agent_id)
    return [*([] if found.plan is None else [found.plan]), *found.commands]


async def test_a_cloud_put_back_two_days_is_obeyed_again_and_nothing_old_is(
    cluster: EmbeddedPostgres,
    database: Database,
    database_name: str,
    backup: str,
    principal: Principal,
    signer: SignerClient,
    tmp_path: Path,
) -> None:
    clock = ManualClock(START)
    database.clock = clock
    authority = CertificateAuthority(tmp_path / "keys", clock)
    with database.unit_of_work(principal) as uow:
        service.create_site(uow, SITE, "Pecos", "UTC")
        token = enrolment.make_join_token(uow, authority, SITE)
        _, secret = enrolment.token_tenant(token)
        agent_id = enrolment.enrol(uow, authority, secret, new_key().csr).identity.agent_id
    dispatch(database, principal, signer, 1)
    database.close()
    cluster.create_database(backup, database_name)

    clock.advance(timedelta(days=2).total_seconds())
    journal, writer = await journal_of(tmp_path, agent_id, signer)
    for revision in (2, 3):
        dispatch(database, principal, signer, revision)
    stop(database, principal, signer, "m1")
    for envelope in waiting(database, principal, agent_id):
        await journal.accept(envelope)
    assert (journal.plan_revision, len(journal.commands)) == (3, 1)
    done = waiting(database, principal, agent_id)
    stop(database, principal, signer, "m2")
    dispatch(database, principal, signer, 9)
    undelivered = [each for each in waiting(database, principal, agent_id) if each not in done]
    assert len(undelivered) == 2
    database.close()

    restored = Database(cluster.url(database=backup), clock)
    try:
        dispatch(restored, principal, signer, 2)  # it goes on before the agent is heard: the signer remembers
        with restored.unit_of_work(principal) as uow:
            orders.resume(uow, SITE, journal.taken.highest, journal.taken.order_id)
            orders.refresh(uow, SITE, agent_id, signer)
        for envelope in waiting(restored, principal, agent_id):
            await journal.accept(envelope)
        assert journal.plan is not None and (journal.plan.revision, journal.plan.signing_epoch) == (2, 3)
        stop(restored, principal, signer, "m3")
        for envelope in waiting(restored, principal, agent_id):
            await journal.accept(envelope)
        assert [command.miner_ids for command in journal.commands] == [("m1",), ("m3",)], "orders are accepted again"
        assert await journal.refusals() == {}

        before = (journal.plan, journal.commands, journal.taken)
        for envelope in (*undelivered, *done):
            await journal.accept(replace(envelope))
        assert (journal.plan, journal.commands, journal.taken) == before, "no order of the lost days is taken"
        counted = await journal.refusals()
        assert sum(counted.values()) == 3 and set(counted) <= {"older_epoch", "older_than_held"}
        with restored.unit_of_work(principal) as uow:
            assert orders.resume(uow, SITE, journal.taken.highest, journal.taken.order_id) is None, "they agree again"
    finally:
        restored.close()
        writer.close()
