"""Enrolment against a real gRPC server: it trusts only the CA its token names, and changes nothing unless all held."""

import asyncio
import json
import ssl
import stat
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from agent.enrol import ENROL_METHOD, enrol, read_token
from agent.errors import AccessDenied, BadInput, Permanent, Refused, Transient
from agent.identity import load_identity, store_identity
from agent.settings import Settings, load_settings
from sitelink.v1 import link_pb2 as pb
from tests.contract.pki import Authority
from tests.contract.wire import HttpProxy

pytestmark = pytest.mark.agent

SECRET = "c2VjcmV0LXNlY3JldA"


@dataclass
class EnrolServer:
    authority: Authority
    requests: list[pb.EnrolRequest] = field(default_factory=list)
    change: Callable[[pb.EnrolReply], None] = lambda reply: None
    refuse: str = ""

    def enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> pb.EnrolReply:
        self.requests.append(request)
        if self.refuse:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refuse)
        reply = pb.EnrolReply(
            certificate_pem=self.authority.sign_request(request.csr_pem),
            ca_pem=self.authority.pem,
            tenant_id="tenant-1",
            site_id="pecos-1",
            agent_id="agent-1",
            order_keys=[b"o" * 32],
            time_keys=[b"t" * 32],
        )
        self.change(reply)
        return reply


@contextmanager
def serving(server: EnrolServer, shown: Authority | None = None) -> Iterator[int]:
    authority = shown or server.authority
    leaf = authority.leaf()
    with futures.ThreadPoolExecutor(2) as pool:
        running = grpc.server(pool)
        handler = grpc.unary_unary_rpc_method_handler(
            server.enrol,
            request_deserializer=pb.EnrolRequest.FromString,
            response_serializer=pb.EnrolReply.SerializeToString,
        )
        _, service, method = ENROL_METHOD.split("/")
        running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        credentials = grpc.ssl_server_credentials(((leaf.key, leaf.certificate + authority.pem),))
        port = running.add_secure_port("127.0.0.1:0", credentials)
        running.start()
        try:
            yield port
        finally:
            running.stop(None).wait()


def settings_for(folder: Path, port: int, site_id: str = "pecos-1") -> Settings:
    path = folder / "agent.toml"
    path.write_text(f'[site]\nsite_id = "{site_id}"\n[link]\nenrol_endpoint = "127.0.0.1:{port}"\n')
    return load_settings(path, {})


def token_of(authority: Authority) -> str:
    return f"ballast1.{SECRET}.{authority.sha256}"


@pytest.fixture
def server() -> EnrolServer:
    return EnrolServer(Authority())


def test_a_token_buys_an_identity_that_the_agent_can_load(server: EnrolServer, tmp_path: Path) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        made = enrol(settings, read_token(token_of(server.authority)))
    assert load_identity(settings.identity_dir, "pecos-1") == made
    assert (made.tenant_id, made.agent_id, made.order_keys, made.time_keys) == (
        "tenant-1",
        "agent-1",
        (b"o" * 32,),
        (b"t" * 32,),
    )
    assert server.requests[0].join_token == token_of(server.authority)
    key = settings.identity_dir / "agent.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in server.requests[0].csr_pem
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(settings.identity_dir / "agent.crt", key)


def test_enrolment_goes_through_a_proxy_that_knows_us(server: EnrolServer, tmp_path: Path) -> None:
    async def story(port: int) -> None:
        proxy = HttpProxy("site", "secret")
        await proxy.start()
        path = tmp_path / "agent.toml"
        link = f'[link]\nenrol_endpoint = "localhost:{port}"\nproxy = "http://site:%s@127.0.0.1:{proxy.port}"\n'
        path.write_text(f'[site]\nsite_id = "pecos-1"\n{link % "wrong"}')
        token = read_token(token_of(server.authority))
        with pytest.raises(AccessDenied, match="wants a user and password"):
            await asyncio.to_thread(enrol, load_settings(path, {}), token)
        path.write_text(f'[site]\nsite_id = "pecos-1"\n{link % "secret"}')
        made = await asyncio.to_thread(enrol, load_settings(path, {}), token)
        assert made.agent_id == "agent-1"
        assert set(proxy.asked) == {f"CONNECT localhost:{port}"}
        await proxy.stop()

    with serving(server) as port:
        asyncio.run(story(port))
    assert len(server.requests) == 1


def test_enrolling_again_replaces_the_identity_whole(server: EnrolServer, tmp_path: Path) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        first = enrol(settings, read_token(token_of(server.authority)))
        second = enrol(settings, read_token(token_of(server.authority)))
    assert first.tls != second.tls
    assert load_identity(settings.identity_dir, "pecos-1") == second
    assert sorted(path.name for path in settings.site.state_dir.iterdir()) == ["identity"]


def test_a_server_that_is_not_the_tokens_never_sees_the_token(server: EnrolServer, tmp_path: Path) -> None:
    impostor = Authority("impostor")
    with serving(server, shown=impostor) as port:
        settings = settings_for(tmp_path, port)
        with pytest.raises(Permanent, match="not the one this token was made by"):
            enrol(settings, read_token(token_of(server.authority)))
    assert server.requests == []
    assert not settings.identity_dir.exists()


def test_a_refused_token_changes_nothing(server: EnrolServer, tmp_path: Path) -> None:
    server.refuse = "the token has been used; make one: ballast site token SITE"
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        with pytest.raises(Refused, match="has been used") as caught:
            enrol(settings, read_token(token_of(server.authority)))
    assert str(caught.value).endswith(f"refused to enrol: {server.refuse}"), "the cloud's remedy, and no second one"
    assert not settings.identity_dir.exists()


def file_for_the_state(settings: Settings) -> None:
    settings.site.state_dir.write_text("a file")


def file_for_the_new_folder(settings: Settings) -> None:
    settings.identity_dir.parent.mkdir(parents=True)
    settings.identity_dir.with_name("identity.new").write_text("a file")


def old_folder_that_stays(settings: Settings) -> None:
    settings.identity_dir.mkdir(parents=True)
    (settings.identity_dir / "trust.json").write_text("what stood there")
    settings.identity_dir.with_name("identity.old").write_text("a file")


@pytest.mark.parametrize("spoil", [file_for_the_state, file_for_the_new_folder, old_folder_that_stays])
def test_a_folder_that_cannot_be_written_is_told_before_the_token_is_sent(
    server: EnrolServer, tmp_path: Path, spoil: Callable[[Settings], None]
) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        spoil(settings)
        before = contents(tmp_path)
        with pytest.raises(BadInput, match=r"cannot be written: .*the token is not used up"):
            enrol(settings, read_token(token_of(server.authority)))
    assert server.requests == []
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_enrolment_leaves_the_earlier_identity(server: EnrolServer, tmp_path: Path) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        enrol(settings, read_token(token_of(server.authority)))
        before = contents(tmp_path)
        server.refuse = "no"
        with pytest.raises(Refused):
            enrol(settings, read_token(token_of(server.authority)))
    assert contents(tmp_path) == before


def other_site(reply: pb.EnrolReply) -> None:
    reply.site_id = "pecos-2"


def no_keys(reply: pb.EnrolReply) -> None:
    del reply.order_keys[:]


def short_key(reply: pb.EnrolReply) -> None:
    reply.time_keys[0] = b"short"


def nonsense(reply: pb.EnrolReply) -> None:
    reply.certificate_pem = b"nonsense"


def foreign_certificate(reply: pb.EnrolReply) -> None:
    reply.certificate_pem = Authority("impostor").leaf().certificate


@pytest.mark.parametrize("change", [other_site, no_keys, short_key, nonsense, foreign_certificate])
def test_a_reply_that_does_not_hold_changes_nothing(
    server: EnrolServer, tmp_path: Path, change: Callable[[pb.EnrolReply], None]
) -> None:
    server.change = change
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        with pytest.raises((Permanent, Refused)):
            enrol(settings, read_token(token_of(server.authority)))
    assert not settings.identity_dir.exists()


def test_a_certificate_for_another_key_changes_nothing(server: EnrolServer, tmp_path: Path) -> None:
    def swap(reply: pb.EnrolReply) -> None:
        reply.certificate_pem = server.authority.leaf().certificate

    server.change = swap
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        with pytest.raises(Permanent, match="not for the key made here"):
            enrol(settings, read_token(token_of(server.authority)))
    assert not settings.identity_dir.exists()


def test_nobody_listening_is_transient(server: EnrolServer, tmp_path: Path) -> None:
    with pytest.raises(Transient, match="enrol_endpoint"):
        enrol(settings_for(tmp_path, 9), read_token(token_of(server.authority)))


@pytest.mark.parametrize("text", ["", "ballast1", "ballast2.secretsecret." + "0" * 64, "ballast1.x." + "0" * 64])
def test_what_is_not_a_token_is_told(text: str) -> None:
    with pytest.raises(BadInput, match="not a join token"):
        read_token(text)


def test_a_token_does_not_show_in_logs() -> None:
    assert SECRET not in repr(read_token(f"ballast1.{SECRET}." + "0" * 64))


@pytest.mark.parametrize("broken", ["{", "[]", '{"tenant_id": 1}', '{"tenant_id":"t","site_id":"pecos-1"}'])
def test_a_broken_identity_is_told_with_its_file(server: EnrolServer, tmp_path: Path, broken: str) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        enrol(settings, read_token(token_of(server.authority)))
    (settings.identity_dir / "trust.json").write_text(broken)
    with pytest.raises(BadInput, match=r"trust\.json: broken"):
        load_identity(settings.identity_dir, "pecos-1")


def test_an_identity_of_another_site_is_refused(server: EnrolServer, tmp_path: Path) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        enrol(settings, read_token(token_of(server.authority)))
    with pytest.raises(BadInput, match="enrolled for site pecos-1, the settings say odessa"):
        load_identity(settings.identity_dir, "odessa")


def test_enrolling_after_a_replacement_was_cut_off_keeps_the_old_identity_until_the_new_one_stands(
    server: EnrolServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        made = enrol(settings, read_token(token_of(server.authority)))
    settings.identity_dir.rename(settings.identity_dir.with_name("identity.old"))
    real = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "identity.new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        store_identity(settings.identity_dir, made)
    monkeypatch.undo()
    assert load_identity(settings.identity_dir, "pecos-1") == made


def test_a_replacement_cut_off_between_its_renames_leaves_the_old_identity(server: EnrolServer, tmp_path: Path) -> None:
    with serving(server) as port:
        settings = settings_for(tmp_path, port)
        made = enrol(settings, read_token(token_of(server.authority)))
    settings.identity_dir.rename(settings.identity_dir.with_name("identity.old"))
    assert load_identity(settings.identity_dir, "pecos-1") == made
    assert json.loads((settings.identity_dir / "trust.json").read_text())["agent_id"] == "agent-1"
