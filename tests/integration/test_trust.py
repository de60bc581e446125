"""Who may speak for a site: renewal, copies of an identity, two gateways, keys that wait for an operator."""

import argparse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import cloud.cli.agents
from cloud.cli import main
from cloud.core.access import Principal
from cloud.core.errors import NotFound
from cloud.hosting import queries
from cloud.identity import certificates, enrolment
from cloud.identity.authority import certificate_facts
from cloud.infra.db import Database
from cloud.models.identity import AGENT_CERTIFICATES, AGENTS
from cloud.settings import Settings
from sitelink.signing import fingerprint
from sitelink.types import ClockTrust, Domain, Heartbeat, Hello, NoticeCode
from sitelink.v1 import link_pb2 as pb
from sitelink.v1 import link_pb2_grpc
from tests.integration.test_site_link import Link, eventually, is_envelope, link, signer

__all__ = ["link", "signer"]

pytestmark = pytest.mark.timeout(90)


@dataclass
class Key:
    """A key of a gateway, and its signing request."""

    pem: bytes
    csr: bytes
    fingerprint: str


def new_key() -> Key:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Key(pem, csr.public_bytes(serialization.Encoding.PEM), fingerprint(der))


async def renew(link: Link, key_pem: bytes, certificate_pem: bytes, wanted: Key, generation: int) -> pb.RenewReply:
    credentials = grpc.ssl_channel_credentials(link.authority.pem, key_pem, certificate_pem)
    async with grpc.aio.secure_channel(f"localhost:{link.servers.link_port}", credentials) as channel:
        stub = link_pb2_grpc.EnrolmentStub(channel)
        return await stub.Renew(pb.RenewRequest(csr_pem=wanted.csr, generation=generation), timeout=20)


async def ask(link: Link, token: str, key: Key) -> pb.EnrolReply:
    credentials = grpc.ssl_channel_credentials(link.authority.pem)
    async with grpc.aio.secure_channel(f"localhost:{link.servers.enrol_port}", credentials) as channel:
        stub = link_pb2_grpc.EnrolmentStub(channel)
        return await stub.Enrol(pb.EnrolRequest(join_token=token, csr_pem=key.csr), timeout=20)


async def connects(link: Link, key_pem: bytes, certificate_pem: bytes) -> None:
    async with link.stream(key_pem, certificate_pem) as stream:
        await stream.hello()


async def refused(link: Link, key_pem: bytes, certificate_pem: bytes) -> str:
    async with link.stream(key_pem, certificate_pem) as stream:
        await stream.send(Hello("pecos-1", link.agent_id, "test", "e1", 0, 0))
        error = await stream.refusal()
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    return str(error.details())


def notices(link: Link) -> list[NoticeCode]:
    with link.database.unit_of_work(link.principal) as uow:
        return [notice.code for notice in queries.notices(uow, "pecos-1", 50)]


async def test_a_certificate_is_renewed_and_the_old_one_is_good_until_the_new_one_is_shown(link: Link) -> None:
    key = new_key()
    reply = await renew(link, link.key_pem, link.certificate_pem, key, 1)
    assert reply.generation == certificate_facts(reply.certificate_pem).generation == 2
    await connects(link, link.key_pem, link.certificate_pem)
    await connects(link, key.pem, reply.certificate_pem)
    again = await renew(link, key.pem, reply.certificate_pem, new_key(), 2)
    assert again.generation == 3
    with link.database.unit_of_work(link.principal) as uow:
        held = certificates.held_by(uow, link.agent_id)
    assert held == (link.certificate_pem, reply.certificate_pem, again.certificate_pem)


async def test_a_renewal_whose_answer_was_lost_is_answered_again(link: Link) -> None:
    key = new_key()
    replies = [await renew(link, link.key_pem, link.certificate_pem, key, 1) for _ in range(3)]
    assert len({reply.certificate_pem for reply in replies}) == 1, "the same key gets the same answer"
    await connects(link, key.pem, replies[0].certificate_pem)


async def test_with_another_key_it_is_answered_once_more_and_then_locks(link: Link) -> None:
    lost, found, third = new_key(), new_key(), new_key()
    await renew(link, link.key_pem, link.certificate_pem, lost, 1)
    reply = await renew(link, link.key_pem, link.certificate_pem, found, 1)
    assert reply.generation == 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await renew(link, link.key_pem, link.certificate_pem, third, 1)
    told = str(caught.value.details())
    assert "locked, two gateways hold its identity" in told and "ballast site token pecos-1" in told
    assert "locked" in await refused(link, found.pem, reply.certificate_pem)
    assert notices(link) == [NoticeCode.IDENTITY_LOCKED]


async def test_a_clone_that_renews_locks_the_identity_for_both(link: Link) -> None:
    clone = (link.key_pem, link.certificate_pem)
    key = new_key()
    reply = await renew(link, link.key_pem, link.certificate_pem, key, 1)
    await connects(link, key.pem, reply.certificate_pem)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await renew(link, *clone, new_key(), 1)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "find the copy" in str(caught.value.details())
    assert "locked" in await refused(link, key.pem, reply.certificate_pem)
    assert notices(link) == [NoticeCode.IDENTITY_LOCKED]
    with link.database.unit_of_work(link.principal) as uow:
        assert enrolment.open_agents(uow) == {}


async def test_a_clone_that_renewed_first_is_found_out_when_the_gateway_connects(link: Link) -> None:
    stolen = new_key()
    reply = await renew(link, link.key_pem, link.certificate_pem, stolen, 1)
    await connects(link, stolen.pem, reply.certificate_pem)
    assert "certificate 1 was shown while 2 was in use" in await refused(link, link.key_pem, link.certificate_pem)
    assert "locked" in await refused(link, stolen.pem, reply.certificate_pem)
    new_pem, made = await link.enrol(link.token())
    link.agent_id = made.agent_id
    await connects(link, new_pem, made.certificate_pem)


async def test_a_stream_with_the_old_certificate_ends_once_the_new_one_is_in_use(link: Link) -> None:
    key = new_key()
    reply = await renew(link, link.key_pem, link.certificate_pem, key, 1)
    async with link.stream() as old:
        await old.hello()
        with link.database.unit_of_work(link.principal) as uow:
            facts = certificate_facts(reply.certificate_pem)
            assert not certificates.admit(uow, identity_of(link), facts, lambda serial: False).refusal
            uow.notify("agents", site_id="pecos-1")
        refusal = None
        while refusal is None:
            await old.send(Heartbeat("n", 0, ClockTrust.SYNCED, 0, 0, 0))
            try:
                await old.until(is_envelope(Domain.TIME))
            except grpc.aio.AioRpcError as error:
                refusal = error
    assert "newer certificate" in str(refusal.details())
    await connects(link, key.pem, reply.certificate_pem)


def identity_of(link: Link):
    from cloud.identity.model import parse_agent_uri

    return parse_agent_uri(certificate_facts(link.certificate_pem).uri)


async def test_a_cloud_that_forgot_a_renewal_takes_the_certificate_up_again(link: Link) -> None:
    key = new_key()
    reply = await renew(link, link.key_pem, link.certificate_pem, key, 1)
    with link.database.unit_of_work(link.principal) as uow:
        uow.session.execute(AGENT_CERTIFICATES.delete().where(AGENT_CERTIFICATES.c.generation > 1))
    await connects(link, key.pem, reply.certificate_pem)
    assert "locked" in await refused(link, link.key_pem, link.certificate_pem)


async def test_a_cloud_that_forgot_an_agent_takes_it_up_unless_it_was_withdrawn(link: Link) -> None:
    link.clock.advance(5)
    key_pem, made = await link.enrol(link.token())
    first = (link.key_pem, link.certificate_pem)
    forget(link)
    await connects(link, *first)
    link.agent_id = made.agent_id
    await connects(link, key_pem, made.certificate_pem)
    link.agent_id = certificate_facts(link.certificate_pem).uri.rpartition("/")[2]
    assert "replaced by" in await refused(link, *first)
    forget(link)
    facts = certificate_facts(link.certificate_pem)
    link.servers.withdrawn.add([(facts.serial, link.clock.now())], link.clock.now())
    assert "was withdrawn" in await refused(link, *first)


def forget(link: Link) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        uow.session.execute(AGENT_CERTIFICATES.delete())
        uow.session.execute(AGENTS.delete())


@asynccontextmanager
async def driving(link: Link, instance_id: str) -> AsyncIterator[None]:
    async with link.stream() as stream:
        await stream.hello(instance_id=instance_id)
        yield


async def second(link: Link, instance_id: str) -> grpc.aio.AioRpcError:
    async with link.stream() as stream:
        await stream.send(Hello("pecos-1", link.agent_id, "test", "e1", 0, 0, instance_id=instance_id))
        return await stream.refusal()


async def test_a_second_gateway_with_the_same_identity_is_refused_and_reported_once(link: Link) -> None:
    async with driving(link, "one"):
        for _ in range(2):
            error = await second(link, "two")
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            assert "another gateway drives site pecos-1" in str(error.details())
        async with driving(link, "one"):
            pass
    assert notices(link) == [NoticeCode.SECOND_GATEWAY]


async def test_a_gateway_that_is_gone_or_silent_is_taken_over_from(link: Link) -> None:
    async with driving(link, "one"):
        pass

    def is_down() -> bool:
        with link.database.unit_of_work(link.principal) as uow:
            return not queries.link(uow, "pecos-1").up

    await eventually(is_down)
    async with driving(link, "two"):
        link.database.clock = link.clock
        link.clock.advance(timedelta(seconds=25).total_seconds())
        async with driving(link, "three"):
            pass
    assert notices(link) == []


async def test_a_key_that_needs_approval_waits_for_an_operator_who_saw_its_fingerprint(link: Link) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        token = enrolment.make_join_token(uow, link.authority, "pecos-1", needs_approval=True)
    key, thief = new_key(), new_key()
    reply = await ask(link, token, key)
    assert (reply.certificate_pem, reply.awaits_approval, reply.fingerprint) == (b"", True, key.fingerprint)
    for decided in (thief.fingerprint, key.fingerprint[:-1], ""):
        with pytest.raises(NotFound), link.database.unit_of_work(link.principal) as uow:
            enrolment.decide(uow, decided, approved=True)
    with pytest.raises(grpc.aio.AioRpcError, match="used"):
        await ask(link, token, thief)
    assert (await ask(link, token, key)).awaits_approval, "asking again changes nothing"
    with link.database.unit_of_work(link.principal) as uow:
        assert [item.fingerprint for item in enrolment.requests(uow)] == [key.fingerprint]
        enrolment.decide(uow, key.fingerprint.upper(), approved=True)
    link.clock.advance(7200)
    made = await ask(link, token, key)
    assert not made.awaits_approval
    assert (await ask(link, token, key)).certificate_pem == made.certificate_pem, "the answer may have been lost"
    link.agent_id = made.agent_id
    await connects(link, key.pem, made.certificate_pem)
    with pytest.raises(grpc.aio.AioRpcError, match="used"):
        await ask(link, token, key)


async def test_a_key_that_an_operator_refused_gets_nothing(link: Link) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        token = enrolment.make_join_token(uow, link.authority, "pecos-1", needs_approval=True)
    key = new_key()
    await ask(link, token, key)
    with link.database.unit_of_work(link.principal) as uow:
        enrolment.decide(uow, key.fingerprint, approved=False)
    with pytest.raises(grpc.aio.AioRpcError, match="refused this key"):
        await ask(link, token, key)


async def test_what_is_withdrawn_stands_in_the_list_and_stays_there(link: Link) -> None:
    withdrawn = link.servers.withdrawn
    assert withdrawn.update(link.database) and not withdrawn.update(link.database)
    serial = certificate_facts(link.certificate_pem).serial
    key = new_key()
    reply = await renew(link, link.key_pem, link.certificate_pem, key, 1)
    assert not withdrawn.update(link.database), "both are good until the new one is shown"
    await connects(link, key.pem, reply.certificate_pem)
    assert withdrawn.update(link.database)
    assert serial in withdrawn and certificate_facts(reply.certificate_pem).serial not in withdrawn
    with link.database.unit_of_work(link.principal) as uow:
        enrolment.revoke(uow, link.agent_id, "stolen")
    assert withdrawn.update(link.database)
    forget(link)
    assert not withdrawn.update(link.database), "a database put back takes nothing off the list"
    listed = x509.load_pem_x509_crl(withdrawn.path.read_bytes())
    assert len(list(listed)) == 2
    authority = x509.load_pem_x509_certificate(link.authority.pem)
    key_of_ca = authority.public_key()
    assert isinstance(key_of_ca, ec.EllipticCurvePublicKey)
    assert listed.is_signature_valid(key_of_ca)
    assert "was withdrawn" in await refused(link, key.pem, reply.certificate_pem)


async def test_an_operator_lists_approves_and_revokes(
    link: Link, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(_: argparse.Namespace) -> Iterator[tuple[Database, Settings, Principal]]:
        yield link.database, Settings(data_dir=link.authority.folder.parent), link.principal

    monkeypatch.setattr(cloud.cli.agents, "open_database", opened)
    with link.database.unit_of_work(link.principal) as uow:
        token = enrolment.make_join_token(uow, link.authority, "pecos-1", needs_approval=True)
    key = new_key()
    await ask(link, token, key)
    assert main.run(["agents", "list"]) == 0
    told = capsys.readouterr().out
    assert f"{link.agent_id}  certificate 1, holds until" in told and "not connected" in told
    assert f"ballast agents approve {key.fingerprint}" in told
    assert main.run(["agents", "approve", "0000"]) == 1
    assert "ballast agents list" in capsys.readouterr().err
    assert main.run(["agents", "approve", key.fingerprint]) == 0
    assert not (await ask(link, token, key)).awaits_approval
    assert main.run(["agents", "revoke", link.agent_id, "--reason", "stolen"]) == 0
    assert "revoked: stolen" in await refused(link, link.key_pem, link.certificate_pem)
    assert certificate_facts(link.certificate_pem).serial in link.servers.withdrawn
    assert main.run(["agents", "revoke", link.agent_id]) == 1
