"""Which addresses are meant by what a person wrote: networks, ranges and hosts. Pure.

    10.0.0.0/22   10.0.4.0-10.0.4.99   10.0.4.0-99   10.0.7.12   rig-7.site

Invariants: how many there are is known before the first is listed, and never more than ``MOST_HOSTS``; a network or
range lies in address space that is the site's own, so that a slip of the pen does not knock on the world's doors.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

from agent.errors import BadInput

MOST_HOSTS: Final = 16_384
_RANGE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})-((?:[0-9]{1,3}\.){0,3}[0-9]{1,3})")
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_Pair = tuple[int, int]


def hosts_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return every host meant by ``texts``, each once, in their order.

    Raises:
        BadInput: a text is none of the forms, is on the public internet, or they are too many hosts together.
    """
    parts = [_part(text.strip()) for text in texts]
    total = sum(1 if isinstance(part, str) else part[1] - part[0] + 1 for part in parts)
    if total > MOST_HOSTS:
        raise BadInput(
            f"{total:,} addresses are more than {MOST_HOSTS:,} at once; give smaller ranges, one after the other "
            "(a /18 has 16,384)"
        )
    return tuple(dict.fromkeys(host for part in parts for host in _hosts(part)))


def _part(text: str) -> str | _Pair:
    """Return a host, or the first and last address of a network or range, as numbers. Raises BadInput."""
    if "/" in text:
        return _network(text)
    match = _RANGE.fullmatch(text)
    if match is not None:
        return _range(text, match[1], match[2])
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _NAME.fullmatch(text) or re.fullmatch(r"[0-9.]+", text):
        raise BadInput(
            f"{text!r} is no address; write for example 10.0.0.0/22, 10.0.4.0-10.0.4.99, 10.0.7.12 or a host name"
        )
    return text


def _network(text: str) -> _Pair:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadInput(f"{text!r} is no network; write for example 10.0.0.0/22") from None
    if network.version != 4:
        raise BadInput(f"{text!r}: miners speak IPv4, and an IPv6 network is too large to sweep; give single hosts")
    first, last = int(network.network_address), int(network.broadcast_address)
    if last - first > 1:
        first, last = first + 1, last - 1  # the network's own two addresses are nobody's
    return _of_the_site(text, first, last)


def _range(text: str, start: str, end: str) -> _Pair:
    missing = 3 - end.count(".")
    whole = ".".join([*start.split(".")[:missing], end])
    try:
        first, last = (int(ipaddress.IPv4Address(each)) for each in (start, whole))
    except ValueError:
        raise BadInput(f"{text!r} is no range; write for example 10.0.4.0-10.0.4.99") from None
    if last < first:
        raise BadInput(f"{text!r} ends before it starts; write the lower address first")
    return _of_the_site(text, first, last)


def _of_the_site(text: str, first: int, last: int) -> _Pair:
    blocks = ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    if any(not (block.is_private or block.subnet_of(_SHARED)) for block in blocks):
        raise BadInput(
            f"{text!r} is on the public internet; a range must be of the site's own network, such as 10.0.0.0/22; "
            "a single host may be anywhere"
        )
    return first, last


_SHARED: Final = ipaddress.IPv4Network("100.64.0.0/10")


def _hosts(part: str | _Pair) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        for number in range(part[0], part[1] + 1):
            yield str(ipaddress.IPv4Address(number))
