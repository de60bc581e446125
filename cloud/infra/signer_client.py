"""Asks the signer process for signatures; satisfies ``sitelink.signing.Signer``.

Invariant: one connection a request, each bounded in time; a signer that does not answer is ``Transient``.
"""

import base64
import json
import socket
from pathlib import Path
from typing import Any, Final

from cloud.core.errors import Refused, StaleSequence, Transient
from sitelink.types import Domain, Envelope

_PATIENCE_S: Final = 5.0


class SignerClient:
    """The signer behind ``socket_path``."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    def sign(self, domain: Domain, payload: bytes) -> Envelope:
        """Return ``payload`` sealed for ``domain``.

        Raises:
            StaleSequence: number the order higher and ask again.
            Refused: a rule of the signer said no.
            Transient: the signer does not answer.
        """
        encoded = base64.b64encode(payload).decode("ascii")
        reply = self._ask({"op": "sign", "domain": domain.value, "payload": encoded})
        return Envelope(domain, str(reply["key_id"]), payload, base64.b64decode(reply["signature"]))

    def public_key(self) -> bytes:
        """Return the raw public key that agents pin.

        Raises:
            Transient: the signer does not answer.
        """
        return bytes.fromhex(self._ask({"op": "public_key"})["public_key"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_PATIENCE_S)
                connection.connect(str(self._socket_path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as stream:
                    line = stream.readline()
            reply: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise Transient(f"signer: no answer on {self._socket_path} ({error}); is `ballast up` running?") from None
        code = reply.get("error")
        if code == "stale_sequence":
            raise StaleSequence(reply["site_id"], reply["signing_epoch"], reply["sequence"])
        if code == "signer_failed":
            raise Transient(f"signer: {reply['message']}")
        if code is not None:
            raise Refused(code, f"signer: {reply['message']}")
        return reply
