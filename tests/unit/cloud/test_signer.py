import base64
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud import signer as signer_process
from cloud.core.errors import Refused, StaleSequence
from cloud.infra.signer_client import SignerClient
from cloud.signer import CommandSigner
from sitelink.orders import write_command, write_plan
from sitelink.signing import KeyRing
from sitelink.types import (
    Command,
    Curtailment,
    CurtailmentCause,
    Domain,
    Envelope,
    Fallback,
    Interval,
    Ramp,
    SitePlan,
    Verb,
)
from sitelink.units import Watts

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
RAMP = Ramp(Watts(0.0), 1.0)
IMAGE = (("file", "fw.bin"), ("sha256", "0" * 64), ("version", "2"))


def curtailment(start: int, end: int, *miner_ids: str) -> Curtailment:
    interval = Interval(NOW + timedelta(minutes=start), NOW + timedelta(minutes=end))
    return Curtailment(f"c{start}", CurtailmentCause.PRICE, interval, miner_ids, RAMP, RAMP)


def plan(sequence: int, epoch: int = 1, *curtailments: Curtailment) -> SitePlan:
    valid = Interval(NOW, NOW + timedelta(hours=2))
    items = curtailments or (curtailment(10, 20, "a"),)
    return SitePlan("p", "pecos-1", "agent-1", epoch, sequence, sequence, NOW, valid, Fallback.RUN, items)


def command(sequence: int, verb: Verb = Verb.STOP, *miner_ids: str) -> Command:
    until = NOW + timedelta(minutes=10)
    return Command("k", "pecos-1", "agent-1", 1, sequence, NOW, until, verb, miner_ids or ("a",), "test")


@pytest.fixture
def signer(tmp_path: Path) -> CommandSigner:
    return CommandSigner(tmp_path, max_stopped_miners=2)


def sign_plan(signer: CommandSigner, order: SitePlan) -> Envelope:
    payload = write_plan(order)
    key_id, signature = signer.sign(Domain.PLAN, payload)
    return Envelope(Domain.PLAN, key_id, payload, signature)


def test_an_agent_can_verify_what_was_signed(signer: CommandSigner) -> None:
    envelope = sign_plan(signer, plan(1))
    assert KeyRing((signer.public_key,)).open(envelope, Domain.PLAN) == envelope.payload


def test_numbers_only_grow_even_over_a_restart(signer: CommandSigner, tmp_path: Path) -> None:
    sign_plan(signer, plan(5))
    for old in (plan(4), replace(plan(5), plan_id="other"), plan(9, 1)):
        if old.sequence == 9:
            sign_plan(signer, old)
            continue
        with pytest.raises(StaleSequence) as caught:
            sign_plan(signer, old)
        assert (caught.value.signing_epoch, caught.value.sequence) == (1, 5)
    restarted = CommandSigner(tmp_path, max_stopped_miners=2)
    assert restarted.public_key == signer.public_key
    with pytest.raises(StaleSequence):
        restarted.sign(Domain.COMMAND, write_command(command(9)))
    sign_plan(restarted, plan(1, 2))
    with pytest.raises(StaleSequence):
        sign_plan(restarted, plan(10, 1))


def test_the_same_bytes_again_are_answered_again(signer: CommandSigner) -> None:
    assert sign_plan(signer, plan(3)) == sign_plan(signer, plan(3))


def test_the_number_is_on_disk_before_the_signature_leaves(signer: CommandSigner, tmp_path: Path) -> None:
    sign_plan(signer, plan(7))
    assert json.loads((tmp_path / "signed.json").read_bytes())["pecos-1"]["sequence"] == 7
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (plan(1, 1, curtailment(10, 200, "a")), "expires_before_release"),
        (plan(1, 1, curtailment(10, 20, "a", "b", "c")), "too_many_miners"),
        (plan(1, 1, curtailment(10, 20, "a", "b"), curtailment(15, 30, "c")), "too_many_miners"),
        (plan(0), "unnumbered"),
        (plan(1, 0), "unnumbered"),
        (replace(plan(1), agent_id=""), "unnumbered"),
        (command(1, Verb.REBOOT, "a", "b", "c"), "too_many_miners"),
        (replace(command(1, Verb.REBOOT), parameters=(("now", "true"),)), "bad_parameters"),
        (replace(command(1, Verb.LIMIT), parameters=(("power_w", "much"),)), "bad_parameters"),
        (replace(command(1, Verb.FIRMWARE), parameters=IMAGE), "two_people_needed"),
        (replace(command(1, Verb.FIRMWARE), parameters=IMAGE, approved_by=("ann", " Ann ")), "two_people_needed"),
        (
            replace(command(1, Verb.FIRMWARE, "a", "b", "c"), parameters=IMAGE, approved_by=("ann", "bob")),
            "too_many_miners",
        ),
        (command(1, Verb.STOP, "a", "b", "c"), "too_many_miners"),
        (replace(command(1), expires_at=NOW + timedelta(days=2)), "valid_too_long"),
        (replace(command(1), miner_ids=()), "no_miners"),
    ],
)
def test_orders_that_break_a_rule_are_refused(signer: CommandSigner, order: SitePlan | Command, code: str) -> None:
    domain, payload = (
        (Domain.PLAN, write_plan(order)) if isinstance(order, SitePlan) else (Domain.COMMAND, write_command(order))
    )
    with pytest.raises(Refused) as caught:
        signer.sign(domain, payload)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "order",
    [
        command(1, Verb.REBOOT, "a", "b"),
        replace(command(1, Verb.LIMIT, "a", "b", "c"), parameters=(("power_w", "2500"),)),
        replace(command(1, Verb.FIRMWARE), parameters=IMAGE, approved_by=("ann", "bob")),
        command(1, Verb.PASSWORD, "a", "b", "c"),
    ],
)
def test_every_verb_is_signed_when_it_says_what_it_needs(signer: CommandSigner, order: Command) -> None:
    payload = write_command(order)
    key_id, signature = signer.sign(Domain.COMMAND, payload)
    keys = KeyRing((signer.public_key,))
    assert keys.open(Envelope(Domain.COMMAND, key_id, payload, signature), Domain.COMMAND) == payload


@pytest.mark.parametrize(
    ("domain", "payload", "code"),
    [
        (Domain.TIME, write_plan(plan(1)), "wrong_domain"),
        (Domain.COMMAND, write_plan(plan(1)), "malformed_order"),
        (Domain.PLAN, b"{}", "malformed_order"),
        (Domain.PLAN, b" " + write_plan(plan(1)), "not_canonical"),
        (Domain.PLAN, b"\xff", "malformed_order"),
        (Domain.PLAN, b"[" * 200_000, "malformed_order"),
        (
            Domain.PLAN,
            write_plan(plan(1)).replace(b"2026-05-01T12:00:00.000000+00:00", b"0001-01-01T00:00+14:00"),
            "malformed_order",
        ),
        (Domain.PLAN, write_plan(plan(1)).replace(b":0.0", b":1" + b"0" * 400), "malformed_order"),
    ],
)
def test_bytes_that_are_no_order_are_refused(signer: CommandSigner, domain: Domain, payload: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        signer.sign(domain, payload)
    assert caught.value.code == code


def test_one_site_after_the_other_may_stop_many(signer: CommandSigner) -> None:
    sign_plan(signer, plan(1, 1, curtailment(10, 20, "a", "b"), curtailment(20, 30, "c", "d")))


@pytest.mark.parametrize("name", ["command.pem", "signed.json"])
def test_damaged_files_stop_the_start(tmp_path: Path, name: str) -> None:
    CommandSigner(tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(Refused, match="restore it from the backup"):
        CommandSigner(tmp_path)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A signer process's loop, in a thread; yields its socket."""
    monkeypatch.setattr(signer_process, "_PATIENCE_S", 0.5)
    listens = threading.Event()
    path = tmp_path / "s.sock"
    arguments = (tmp_path, path, 0, listens.set)
    threading.Thread(target=signer_process.serve, args=arguments, daemon=True).start()
    assert listens.wait(10)
    yield path
    assert len(SignerClient(path).public_key()) == 32, "it still answers"


def ask(path: Path, line: bytes) -> dict[str, str]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, connection.makefile("rb") as answer:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(line + b"\n")
        return json.loads(answer.readline() or "{}")


def test_a_second_signer_ends_and_leaves_the_first_its_socket(running: Path) -> None:
    inode = running.stat().st_ino
    with pytest.raises(Refused, match="another signer runs on"):
        signer_process.serve(running.parent, running)
    assert running.stat().st_ino == inode


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"op":' * 200_000, b"5", b"\xff", b"null", b'{"op": "dance"}'])
def test_no_request_stops_the_signer(running: Path, line: bytes) -> None:
    assert ask(running, line)["error"] == "bad_request"


def test_a_deep_payload_does_not_stop_the_signer(running: Path) -> None:
    payload = base64.b64encode(b"[" * 200_000).decode()
    request = {"op": "sign", "domain": Domain.PLAN.value, "payload": payload}
    assert ask(running, json.dumps(request).encode())["error"] == "malformed_order"


def test_a_caller_that_drips_is_hung_up_on_after_the_patience_for_one_request(running: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(0.1)  # between two bytes: far below the patience
        connection.connect(str(running))
        for _ in range(200):
            try:
                connection.sendall(b" ")
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                return
            assert ended
            return
    raise AssertionError("200 bytes at 10 a second were waited for")
