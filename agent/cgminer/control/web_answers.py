"""What the drivers of web firmwares share: how long an answer may take, answers raised by what they mean, files packed.

Invariant: what a server says with its status is sorted by ``web.check_status`` alone, when a page is read as well.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.web import WebReply, check_status
from agent.errors import AccessDenied, Garbled

AS_JSON: Final = {"content-type": "application/json"}


def raise_unless_taken(device: Device, reply: WebReply, what: str) -> None:
    """Sort what a server answered to an order.

    Raises:
        SessionBusy: it is busy with something else.
        Transient: it cannot now.
        UnsupportedDevice: it does not know ``what``, or refuses it.
    """
    check_status(device.address, reply, what)


def exactly(device: Device, reply: WebReply, what: str) -> dict[str, Any]:
    """Return the object that ``reply`` is, unrepaired: it is going to be written back by ``written``.

    Letters that are no UTF-8 (a worker named in another code) are carried through as they are.

    Raises:
        Garbled: it is not JSON to the letter, or a name stands in it twice.
    """
    try:
        found = json.loads(reply.body.decode("utf-8", "surrogateescape"), object_pairs_hook=_unambiguous)
        written(found)  # half a surrogate pair can be read, and not written
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Garbled(
            f"{device.address}: its {what} cannot be read to the letter ({reply.spoken}), so it is not changed; "
            "restart the miner"
        )
    return found


def written(document: object) -> bytes:
    """Return what ``exactly`` has read, perhaps changed, in the letters that the device itself used."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def value_of(device: Device, reply: WebReply, what: str) -> Any:
    """Return the JSON value that ``reply`` is, whatever its kind. Raises Garbled when it is none."""
    try:
        return json.loads(reply.body.decode())
    except (ValueError, RecursionError):
        raise Garbled(
            f"{device.address}: answers {what} with no JSON ({reply.spoken}); check what runs there"
        ) from None


def credentials_of(device: Device) -> Credentials:
    """Return the credentials for a device that takes orders from nobody without. Raises AccessDenied without any."""
    if device.credentials is None:
        raise AccessDenied(
            f"{device.address}: takes this order only for a password; enter that of {_group_of(device)}: "
            "ballast-agent credentials set GROUP"
        )
    return device.credentials


async def opens(device: Device, target: str, login: Mapping[str, str], found: Credentials) -> bool:
    """Return whether ``login`` at ``target`` opens the device for ``found``, who we then are. Raises as ``call``."""
    try:
        reply = await device.tried(found, "POST", target, login)
    except AccessDenied:
        return False
    raise_unless_taken(device, reply, "a login")
    device.credentials = found
    return True


def packed(parts: Mapping[str, tuple[str, str, bytes]]) -> tuple[bytes, str]:
    """Return a multipart form and its content type. ``parts``: name -> (file name or "", content type, content).

    Source: RFC 7578.
    """
    digest = hashlib.sha256(b"".join(content for _, _, content in parts.values())).hexdigest()
    boundary = f"ballast-{digest[:40]}"  # made from the content, so that it does not stand in it by chance
    body = b"".join(_lines(boundary, parts)) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _lines(boundary: str, parts: Mapping[str, tuple[str, str, bytes]]) -> Iterator[bytes]:
    for name, (file, kind, content) in parts.items():
        named = f'; filename="{file}"' if file else ""
        yield f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{named}\r\n'.encode()
        yield f"content-type: {kind}\r\n\r\n".encode() + content + b"\r\n"


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _group_of(device: Device) -> str:
    return f"its credentials group ({device.dialect} unless inventory.csv names another)"
