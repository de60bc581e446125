"""A cloud that was put back from a backup: orders are accepted again, none from before is."""

from dataclasses import replace
from datetime import timedelta

import pytest

from cloud.hosting import orders, service
from cloud.models.hosting import ORDER_SEQUENCES, SITE_ORDERS
from sitelink.clock import SystemClock
from sitelink.orders import read_command, read_plan
from sitelink.signing import KeyRing
from sitelink.types import Domain, Envelope, OrderNumber, Verb
from tests.integration.test_site_link import Link, is_envelope, link, plan, signer

__all__ = ["link", "signer"]

pytestmark = pytest.mark.timeout(90)


def dispatch(link: Link, revision: int, plan_id: str) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        service.dispatch_plan(uow, replace(plan(revision), plan_id=plan_id), link.signer)


def stop(link: Link, miner_id: str = "m001") -> str:
    with link.database.unit_of_work(link.principal) as uow:
        return service.queue_command(
            uow, "pecos-1", Verb.STOP, (miner_id,), "test", link.signer, valid_for=timedelta(hours=1)
        )


def forget_above(link: Link, sequence: int) -> None:
    """Put the database back to when ``sequence`` was the newest order of epoch 1."""
    with link.database.unit_of_work(link.principal) as uow:
        uow.session.execute(SITE_ORDERS.delete().where(SITE_ORDERS.c.sequence > sequence))
        uow.session.execute(ORDER_SEQUENCES.update().values(signing_epoch=1, sequence=sequence))


def number(envelope: Envelope) -> OrderNumber:
    order = read_plan(envelope.payload) if envelope.domain is Domain.PLAN else read_command(envelope.payload)
    return OrderNumber(order.signing_epoch, order.sequence)


async def test_an_agent_that_is_ahead_opens_the_next_epoch(link: Link) -> None:
    assert link.reply is not None
    ring = KeyRing(tuple(link.reply.order_keys))
    dispatch(link, 1, "p1")
    command_id = stop(link)
    dispatch(link, 2, "p2")
    forget_above(link, 2)
    async with link.stream() as stream:
        await stream.hello(highest=OrderNumber(1, 3), highest_order_id="p2")
        signed_plan = await stream.until(is_envelope(Domain.PLAN))
        again = await stream.until(is_envelope(Domain.COMMAND))
    assert read_plan(ring.open(signed_plan, Domain.PLAN)).plan_id == "p1", "what is left of the plans stands anew"
    assert read_command(ring.open(again, Domain.COMMAND)).command_id == command_id, "under its own id"
    assert {number(signed_plan).signing_epoch, number(again).signing_epoch} == {2}
    dispatch(link, 3, "p3")
    async with link.stream() as stream:
        await stream.hello(highest=number(again), highest_order_id=command_id)
        newest = await stream.until(is_envelope(Domain.PLAN))
    assert number(newest) == OrderNumber(2, 3), "an agent that is known again opens nothing"


async def test_a_cloud_that_came_as_far_again_sees_that_the_order_is_another(link: Link) -> None:
    dispatch(link, 1, "p1")
    forget_above(link, 0)
    dispatch(link, 1, "other")
    with link.database.unit_of_work(link.principal) as uow:
        assert orders.resume(uow, "pecos-1", OrderNumber(1, 1), "p1") == 3, "the signer knew of epoch 1"
        assert orders.resume(uow, "pecos-1", OrderNumber(0, 0), "") is None
        assert orders.resume(uow, "pecos-1", OrderNumber(2, 1), "other") is None
        assert orders.resume(uow, "pecos-1", OrderNumber(2, 1), "") is None, "an agent that forgot the id"
        assert orders.resume(uow, "pecos-1", OrderNumber(9, 1), "") == 10


async def test_a_restored_cloud_with_a_restored_signer_signs_above_the_agent(link: Link) -> None:
    dispatch(link, 1, "p1")
    async with link.stream() as stream:
        await stream.hello(highest=OrderNumber(7, 40), highest_order_id="of the lost days")
        signed = await stream.until(is_envelope(Domain.PLAN))
    assert number(signed) == OrderNumber(8, 1)
    assert SystemClock().now() < read_plan(signed.payload).valid.end
