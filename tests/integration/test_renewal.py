"""The agent renews against the real cloud; cut off anywhere, it has the old identity or the new one, and goes on."""

import asyncio
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import agent.files
import agent.identity
import agent.renewal
from agent.backoff import Backoff
from agent.enrol import enrol, read_token, shown_fingerprint
from agent.errors import AccessDenied, Permanent, Transient
from agent.identity import Identity, certificate_life, load_identity
from agent.renewal import Renewal, asker, checked, pending_key
from agent.settings import Settings, load_settings
from cloud.identity import enrolment
from sitelink.types import Hello
from tests.integration.test_site_link import Link, link, signer

__all__ = ["link", "signer"]

pytestmark = pytest.mark.timeout(120)


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_before(step: int) -> Iterator[list[int]]:
    """Let the process die before its ``step``-th touch of the disk; yield a list whose length is the touches."""
    touches: list[int] = []

    def counted(real: Any) -> Any:
        def touch(*arguments: Any, **options: Any) -> Any:
            touches.append(1)
            if len(touches) == step:
                raise Killed
            return real(*arguments, **options)

        return touch

    with pytest.MonkeyPatch.context() as patch:
        for module, names in (
            (agent.identity, ("write_new", "sync_folder")),
            (agent.renewal, ("replace_file",)),
            (agent.files.os, ("fsync",)),
            (shutil, ("rmtree",)),
            (Path, ("rename", "unlink", "mkdir")),
        ):
            for name in names:
                patch.setattr(module, name, counted(getattr(module, name)))
        patch.setattr(agent.renewal, "on_disk", here)
        yield touches


async def here(call: Any) -> Any:
    return call()


def settings_of(link: Link, folder: Path) -> Settings:
    path = folder / "agent.toml"
    folder.mkdir(exist_ok=True)
    path.write_text(
        f'[site]\nsite_id = "pecos-1"\n[link]\nenrol_endpoint = "localhost:{link.servers.enrol_port}"\n'
        f'endpoint = "localhost:{link.servers.link_port}"\n'
    )
    return load_settings(path, {})


def renewal(link: Link, settings: Settings, identity: Identity) -> Renewal:
    backoff = Backoff(random.Random(0), 0.01, 0.02)
    return Renewal(settings.identity_dir, identity, link.clock.now, asker(settings.link), lambda fresh: None, backoff)


async def connects(link: Link, identity: Identity) -> None:
    link.agent_id = identity.agent_id
    async with link.stream(identity.tls.key_pem, identity.tls.certificate_pem) as stream:
        await stream.hello()


async def enrolled(link: Link, folder: Path) -> tuple[Settings, Identity]:
    settings = settings_of(link, folder)
    identity = await asyncio.to_thread(enrol, settings, read_token(link.token()))
    await connects(link, identity)
    return settings, identity


async def test_an_agent_renews_and_goes_over_to_the_new_certificate(link: Link, tmp_path: Path) -> None:
    settings, identity = await enrolled(link, tmp_path)
    part = renewal(link, settings, identity)
    await part.renew()
    found = load_identity(settings.identity_dir, "pecos-1")
    assert found == part.identity and found.generation == 2
    assert found.tls.key_pem != identity.tls.key_pem
    assert found.tls.ca_pem == identity.tls.ca_pem and found.order_keys == identity.order_keys
    await connects(link, found)
    assert sorted(path.name for path in settings.site.state_dir.iterdir()) == ["identity"]


async def test_killed_between_any_two_steps_it_loses_nothing(link: Link, tmp_path: Path) -> None:
    settings, identity = await enrolled(link, tmp_path)
    step, generations = 0, [identity.generation]
    while True:
        step += 1
        part = renewal(link, settings, load_identity(settings.identity_dir, "pecos-1"))
        with killed_before(step) as touches, suppress(Killed):
            await part.renew()
        whole = load_identity(settings.identity_dir, "pecos-1")
        assert whole.agent_id == identity.agent_id
        await connects(link, whole)
        generations.append(whole.generation)
        if len(touches) < step:
            break
    assert generations == sorted(generations), "what was renewed once is never fallen back from"
    assert step > 15 and generations[-1] > generations[0]
    with link.database.unit_of_work(link.principal) as uow:
        assert enrolment.open_agents(uow) == {"pecos-1": (identity.agent_id,)}, "nothing of it looked like a copy"


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(link: Link, tmp_path: Path) -> None:
    settings, identity = await enrolled(link, tmp_path)
    part = renewal(link, settings, identity)
    real = part._ask
    lost: list[bytes] = []

    async def losing(shown: Identity, csr: bytes) -> tuple[bytes, int]:
        answer = await real(shown, csr)
        if len(lost) < 2:
            lost.append(answer[0])
            raise Transient("the answer was lost")
        return answer

    part._ask = losing
    for _ in range(2):
        with pytest.raises(Transient):
            await part.renew()
    again = renewal(link, settings, load_identity(settings.identity_dir, "pecos-1"))
    await again.renew()
    assert {*lost} == {again.identity.tls.certificate_pem}
    await connects(link, again.identity)


async def test_a_clone_locks_the_identity_and_both_are_told_what_to_do(link: Link, tmp_path: Path) -> None:
    settings, identity = await enrolled(link, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    twin = settings_of(link, tmp_path / "two")
    clone = renewal(link, twin, load_identity(twin.identity_dir, "pecos-1"))
    await clone.renew()
    await connects(link, clone.identity)
    mine = renewal(link, settings, identity)
    with pytest.raises(
        AccessDenied, match=r"two gateways hold its identity.*find the copy.*ballast site token pecos-1"
    ):
        await mine.renew()
    assert load_identity(settings.identity_dir, "pecos-1") == identity
    async with link.stream(clone.identity.tls.key_pem, clone.identity.tls.certificate_pem) as stream:
        await stream.send(Hello("pecos-1", identity.agent_id, "test", "e1", 0, 0))
        assert "locked" in str((await stream.refusal()).details())


async def test_it_is_due_from_a_third_of_the_life_on_and_told_when_it_ran_out(link: Link, tmp_path: Path) -> None:
    settings, identity = await enrolled(link, tmp_path)
    life = certificate_life(identity)
    assert life is not None and timedelta(days=30) <= life.expires_at - life.issued_at <= timedelta(days=31)
    part = renewal(link, settings, identity)
    assert timedelta(days=8).total_seconds() < part._due_in_s() < timedelta(days=11).total_seconds()
    running = asyncio.create_task(part.run())
    await asyncio.sleep(0.05)
    assert part.identity == identity and "number 1, holds until" in part.standing
    running.cancel()
    link.clock.advance(timedelta(days=11).total_seconds())
    running = asyncio.create_task(part.run())
    async with asyncio.timeout(30):
        while part.identity == identity:
            await asyncio.sleep(0.02)
    running.cancel()
    assert part.identity.generation == 2 and "number 2, holds until" in part.standing
    link.clock.advance(timedelta(days=40).total_seconds())
    assert "EXPIRED" in part.standing and "plans are finished" in part.standing and "enrol --token" in part.standing


async def test_what_the_cloud_answers_is_checked(link: Link, tmp_path: Path) -> None:
    settings, identity = await enrolled(link, tmp_path)
    key = pending_key(settings.identity_dir, identity)
    for certificate, generation, told in (
        (b"nonsense", 2, "broken"),
        (identity.tls.certificate_pem, 2, "not for the key"),
    ):
        with pytest.raises(Permanent, match=told):
            checked(identity, key, certificate, generation)
    made = (await asker(settings.link)(identity, agent.renewal.request_for(key, "pecos-1")))[0]
    with pytest.raises(Permanent, match="certificate 1 after 1"):
        checked(identity, key, made, 1)
    assert checked(identity, key, made, 2) != replace(identity)


async def test_an_agent_waits_for_approval_with_the_key_it_shows(link: Link, tmp_path: Path) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        token = enrolment.make_join_token(uow, link.authority, "pecos-1", needs_approval=True)
    settings = settings_of(link, tmp_path)
    shown: list[str] = []

    def give_up(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(enrol, settings, read_token(token), shown.append, give_up)
    assert not settings.identity_dir.exists()

    def approve(_: float) -> None:
        with link.database.unit_of_work(link.principal) as uow:
            enrolment.decide(uow, shown[0], approved=True)

    made = await asyncio.to_thread(enrol, settings, read_token(token), shown.append, approve)
    assert len(shown) == 2 and len({*shown}) == 1, "asked again, it is the same key"
    assert load_identity(settings.identity_dir, "pecos-1") == made
    await connects(link, made)
    assert sorted(path.name for path in settings.site.state_dir.iterdir()) == ["identity"]
    from cryptography.hazmat.primitives import serialization

    key: Any = serialization.load_pem_private_key(made.tls.key_pem, password=None)
    assert shown_fingerprint(key) == shown[0]
