"""The signer: a process of its own behind a unix socket, the only one that holds the command key.

Invariants:

* It signs plans and commands only, only when the payload is exactly the canonical form of a well-formed order.
* ``(signing_epoch, sequence)`` of a site only ever grows; the new value is on disk before the signature leaves.
  The very same bytes again are answered again.
* A stop never leaves without its start: a plan outlives its last release.
* What a verb needs, who stands for new firmware and how many miners are taken off at once is checked here, whatever the
  rest of the cloud believes.
* Requests come from processes of the same user (SO_PEERCRED), over a socket of mode 0600 in a folder of mode 0700.
* One signer a folder (flock): a second one ends before it touches the first one's socket. No request stops it.

      {"op": "sign", "domain": "ballast/plan/v1", "payload": base64}  ->  {"key_id", "signature": base64}
                                                                      ->  {"error": code, "message", ...}
      {"op": "public_key"}                                            ->  {"public_key": hex}
"""

import base64
import binascii
import fcntl
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cloud.core.errors import CloudError, Refused, StaleSequence
from sitelink.orders import MalformedOrder, read_command, read_plan, write_command, write_plan
from sitelink.signing import PrivateKey
from sitelink.types import Command, Curtailment, Domain, SitePlan
from sitelink.verbs import DROPPING, BadCommand, check_command

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
_LONGEST_COMMAND: Final = timedelta(days=1)
_PATIENCE_S: Final = 5.0
_CHUNK_BYTES: Final = 65536


class CommandSigner:
    """The command key and the rules under which it signs. ``folder`` holds ``command.pem`` and ``signed.json``."""

    def __init__(self, folder: Path, max_stopped_miners: int = 0) -> None:
        self._folder = folder
        self._max_stopped = max_stopped_miners
        self._key = _load_key(folder / "command.pem")
        self._signed: dict[str, dict[str, Any]] = _load_state(folder / "signed.json")

    @property
    def public_key(self) -> bytes:
        """Return the raw public key that agents pin."""
        return self._key.public_bytes

    def sign(self, domain: Domain, payload: bytes) -> tuple[str, bytes]:
        """Return ``(key id, signature)``.

        Raises:
            Refused: the payload breaks a rule; the code names it.
            StaleSequence: the order is not above the last one signed for its site.
        """
        site_id, signing_epoch, sequence = self._examine(domain, payload)
        digest = hashlib.sha256(domain.value.encode() + b"\0" + payload).hexdigest()
        last = self._signed.get(site_id)
        if last is not None and (signing_epoch, sequence) <= (last["signing_epoch"], last["sequence"]):
            if digest != last["digest"]:
                raise StaleSequence(site_id, last["signing_epoch"], last["sequence"])
        else:
            entry = {"signing_epoch": signing_epoch, "sequence": sequence, "digest": digest}
            _write_durably(self._folder / "signed.json", json.dumps({**self._signed, site_id: entry}).encode())
            self._signed[site_id] = entry
        envelope = self._key.sign(domain, payload)
        return envelope.key_id, envelope.signature

    def _examine(self, domain: Domain, payload: bytes) -> tuple[str, int, int]:
        try:
            if domain is Domain.PLAN:
                plan = read_plan(payload)
                canonical = write_plan(plan)
                self._check_plan(plan)
                order: SitePlan | Command = plan
            elif domain is Domain.COMMAND:
                command = read_command(payload)
                canonical = write_command(command)
                self._check_command(command)
                order = command
            else:
                raise Refused("wrong_domain", f"the command key does not sign for {domain.value}")
        except (MalformedOrder, ValueError) as error:
            raise Refused("malformed_order", str(error)) from None
        if canonical != payload:
            raise Refused("not_canonical", "the payload is not the canonical form of its order")
        if not order.site_id or not order.agent_id or order.signing_epoch < 1 or order.sequence < 1:
            raise Refused("unnumbered", "an order names site and agent, and its epoch and sequence start at 1")
        return order.site_id, order.signing_epoch, order.sequence

    def _check_plan(self, plan: SitePlan) -> None:
        for item in plan.curtailments:
            if item.interval.end > plan.valid.end:
                raise Refused(
                    "expires_before_release",
                    f"curtailment {item.curtailment_id} is released after the plan expires; extend its validity",
                )
            together = [other for other in plan.curtailments if other.interval.contains(item.interval.start)]
            self._check_count(_miners(together), f"curtailment {item.curtailment_id}")

    def _check_command(self, command: Command) -> None:
        try:
            check_command(command)
        except BadCommand as error:
            raise Refused(error.code, str(error)) from None
        if command.expires_at - command.not_before > _LONGEST_COMMAND:
            raise Refused("valid_too_long", f"command {command.command_id} is valid for more than a day")
        if not command.miner_ids:
            raise Refused("no_miners", f"command {command.command_id} names no miners")
        if command.verb in DROPPING:
            self._check_count(len(set(command.miner_ids)), f"command {command.command_id}")

    def _check_count(self, miners: int, what: str) -> None:
        if self._max_stopped and miners > self._max_stopped:
            raise Refused(
                "too_many_miners",
                f"{what} takes {miners} miners off at once, the limit is {self._max_stopped} (max_stopped_miners)",
            )


def serve(
    folder: Path, socket_path: Path, max_stopped_miners: int = 0, ready: Callable[[], None] | None = None
) -> None:
    """Answer requests on ``socket_path`` until the process ends; one at a time, each within 5 s.

    Raises:
        Refused: another signer holds ``folder``, or a folder is somebody else's.
    """
    for made in (folder, socket_path.parent):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        if made.stat().st_uid != os.geteuid():
            raise Refused("foreign_folder", f"{made} belongs to another account; run the signer as that one")
        made.chmod(0o700)
    with _held(folder), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        signer = CommandSigner(folder, max_stopped_miners)
        socket_path.unlink(missing_ok=True)
        listener.bind(str(socket_path))
        socket_path.chmod(0o600)
        listener.listen(64)
        if ready is not None:
            ready()
        while True:
            connection, _ = listener.accept()
            with connection:
                _answer_one(connection, signer)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other signers; one that was just killed gets a moment to go."""
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused("already_running", f"another signer runs on {folder}; stop it first") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _answer_one(connection: socket.socket, signer: CommandSigner) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    try:
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.geteuid(), 0):
            return
        answer = _answer(_read_line(connection, deadline), signer)
        connection.settimeout(_left_s(deadline))
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        return  # The caller went away or took too long; it asks again.


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    received = bytearray()
    while b"\n" not in received[-_CHUNK_BYTES:] and len(received) < MAX_REQUEST_BYTES:
        connection.settimeout(_left_s(deadline))
        chunk = connection.recv(_CHUNK_BYTES)
        if not chunk:
            break
        received += chunk
    return bytes(received[:MAX_REQUEST_BYTES])


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the request took too long")
    return left_s


def _answer(line: bytes, signer: CommandSigner) -> dict[str, Any]:
    try:
        if b"[" in line or line.count(b"{") > 1:
            raise ValueError("a request is one flat object")
        request = json.loads(line)
        if request["op"] == "public_key":
            return {"public_key": signer.public_key.hex()}
        if request["op"] != "sign":
            raise ValueError(request["op"])
        domain, payload = Domain(request["domain"]), base64.b64decode(request["payload"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        return {"error": "bad_request", "message": f"not a request the signer knows: {error!r}"[:200]}
    try:
        key_id, signature = signer.sign(domain, payload)
    except StaleSequence as error:
        numbers = {"signing_epoch": error.signing_epoch, "sequence": error.sequence, "site_id": error.site_id}
        return {"error": error.code, "message": str(error), **numbers}
    except Refused as error:
        return {"error": error.code, "message": str(error)}
    except (CloudError, OSError) as error:
        return {"error": "signer_failed", "message": str(error)}
    return {"key_id": key_id, "signature": base64.b64encode(signature).decode("ascii")}


def _miners(items: list[Curtailment]) -> int:
    return len({miner_id for item in items for miner_id in item.miner_ids})


def _load_key(path: Path) -> PrivateKey:
    try:
        return PrivateKey.from_pem(path.read_bytes())
    except FileNotFoundError:
        key = PrivateKey.generate()
        _write_durably(path, key.to_pem())
        return key
    except ValueError:
        raise Refused("bad_key", f"{path}: not an Ed25519 key in PEM; restore it from the backup") from None


def _load_state(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise Refused("bad_state", f"{path}: not JSON; restore it from the backup, never delete it") from None
    if not isinstance(document, dict):
        raise Refused("bad_state", f"{path}: not a JSON object; restore it from the backup, never delete it")
    return document


def _write_durably(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
