"""What a thief can do with each thing he may hold, and what not: the rows of docs/security.md that nothing else tests."""

from dataclasses import replace

import grpc
import grpc.aio
import pytest

from cloud.core.access import Permission, Principal, Role
from cloud.core.errors import CloudError, Forbidden
from cloud.hosting import service
from cloud.identity import enrolment
from sitelink.signing import BadSignature, KeyRing, PrivateKey
from sitelink.types import Domain, Hello, Verb
from tests.integration.test_site_link import Link, is_envelope, link, plan, signer
from tests.integration.test_trust import ask, connects, new_key, notices, refused, second

__all__ = ["link", "signer"]

pytestmark = pytest.mark.timeout(90)


async def test_a_join_token_is_worth_nothing_once_it_was_used_or_an_hour_is_over(link: Link) -> None:
    used, old = link.token(), link.token()
    await link.enrol(used)
    link.database.clock = link.clock
    with pytest.raises(grpc.aio.AioRpcError, match="unknown, used or expired"):
        await ask(link, used, new_key())
    link.clock.advance(3601)
    with pytest.raises(grpc.aio.AioRpcError, match="unknown, used or expired"):
        await ask(link, old, new_key())


async def test_a_join_token_that_needs_approval_buys_the_thief_nothing(link: Link) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        token = enrolment.make_join_token(uow, link.authority, "pecos-1", needs_approval=True)
    thief = await ask(link, token, new_key())
    assert thief.awaits_approval and thief.certificate_pem == b""
    with pytest.raises(grpc.aio.AioRpcError, match="used"):
        await ask(link, token, new_key())  # the owner is told that the token has been used: he makes another
    with link.database.unit_of_work(link.principal) as uow:
        assert enrolment.open_agents(uow)["pecos-1"] == (link.agent_id,)


async def test_a_join_token_opens_no_other_site(link: Link) -> None:
    token = link.token("pecos-1")
    with pytest.raises(grpc.aio.AioRpcError, match="for site 'pecos-1', the settings say 'pecos-2'"):
        await link.enrol(token, site_id="pecos-2")


async def test_a_client_certificate_hears_its_site_and_orders_nothing(link: Link) -> None:
    assert link.reply is not None
    with link.database.unit_of_work(link.principal) as uow:
        service.dispatch_plan(uow, plan(1), link.signer)
    async with link.stream() as thief:
        await thief.hello()
        heard = await thief.until(is_envelope(Domain.PLAN))  # it can: this is what it sees
    ring = KeyRing(tuple(link.reply.order_keys))
    with pytest.raises(BadSignature):
        ring.open(PrivateKey.generate().sign(Domain.PLAN, heard.payload), Domain.PLAN)
    with pytest.raises(BadSignature):
        ring.open(replace(heard, payload=heard.payload.replace(b"pecos-1", b"pecos-2")), Domain.PLAN)


async def test_a_client_certificate_speaks_for_no_other_site_and_not_beside_its_gateway(link: Link) -> None:
    async with link.stream() as thief:
        await thief.send(Hello("pecos-2", link.agent_id, "t", "e", 0, 0))
        assert (await thief.refusal()).code() is grpc.StatusCode.PERMISSION_DENIED
    async with link.stream() as gateway:
        await gateway.hello(instance_id="gateway")
        assert (await second(link, "thief")).code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(notices(link)) == 1, "and the operator sees it"


async def test_a_client_certificate_is_worth_nothing_once_it_is_revoked(link: Link) -> None:
    await connects(link, link.key_pem, link.certificate_pem)
    with link.database.unit_of_work(link.principal) as uow:
        assert enrolment.revoke(uow, link.agent_id, "stolen")
    assert "stolen" in await refused(link, link.key_pem, link.certificate_pem)


@pytest.mark.parametrize("role", [Role.HOST, Role.CLIENT, Role.GUEST, Role.AGENT])
async def test_a_session_that_may_not_manage_sites_makes_no_gateway_known(link: Link, role: Role) -> None:
    thief = Principal(link.principal.tenant_id, "thief", role)
    with link.database.unit_of_work(link.principal) as uow:
        token = enrolment.make_join_token(uow, link.authority, "pecos-1", needs_approval=True)
    key = new_key()
    await ask(link, token, key)
    for attempt in (
        lambda uow: enrolment.make_join_token(uow, link.authority, "pecos-1"),
        lambda uow: enrolment.decide(uow, key.fingerprint, approved=True),
        lambda uow: enrolment.revoke(uow, link.agent_id, "out"),
    ):
        with pytest.raises(Forbidden), link.database.unit_of_work(thief) as uow:
            attempt(uow)
    if not thief.may(Permission.ORDER_MINERS):
        with pytest.raises(Forbidden), link.database.unit_of_work(thief) as uow:
            service.queue_command(uow, "pecos-1", Verb.STOP, ("m000",), "theft", link.signer)


async def test_a_session_that_may_order_is_still_bound_by_its_sites_and_the_signer(link: Link) -> None:
    thief = Principal(link.principal.tenant_id, "thief", Role.HOST, frozenset({"pecos-2"}))
    with pytest.raises(Forbidden), link.database.unit_of_work(thief) as uow:
        service.queue_command(uow, "pecos-1", Verb.STOP, ("m000",), "theft", link.signer)
    host = Principal(link.principal.tenant_id, "thief", Role.HOST)
    image = {"file": "evil.bin", "sha256": "0" * 64, "version": "6.6.6"}
    with pytest.raises(CloudError, match="two people"), link.database.unit_of_work(host) as uow:
        service.queue_command(uow, "pecos-1", Verb.FIRMWARE, ("m000",), "theft", link.signer, parameters=image)
