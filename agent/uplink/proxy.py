"""What is said to an HTTP proxy before it leads on, and what it answers. Pure: whoever holds the connection says it.

Source: RFC 9110, 9.3.6 (CONNECT) and 11.7 (Proxy-Authorization); RFC 7617 (Basic).
"""

import base64
from typing import Final

from agent.errors import AccessDenied, Unreachable
from agent.settings import Endpoint, Proxy

END: Final = b"\r\n\r\n"
"""What a head ends with; also what stands for the end of the connection."""
_LONGEST_ANSWER: Final = 8192


def asked(endpoint: Endpoint, proxy: Proxy) -> bytes:
    """Return the request to be led to ``endpoint``."""
    lines = [f"CONNECT {endpoint} HTTP/1.1", f"Host: {endpoint}"]
    if proxy.user:
        secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {secret}")
    return "\r\n".join(lines).encode("ascii") + END


def is_whole(answer: bytes, proxy: Proxy) -> bool:
    """Return whether the head of the answer has ended.

    Raises:
        Unreachable: it never ends.
    """
    if len(answer) > _LONGEST_ANSWER:
        raise Unreachable(f"{proxy}: not an HTTP proxy; check [link] proxy")
    return answer.endswith(END)


def check(answer: bytes, endpoint: Endpoint, proxy: Proxy) -> None:
    """Return when the proxy leads on.

    Raises:
        AccessDenied: it wants a user and password, or others.
        Unreachable: it does not lead there, or is no proxy.
    """
    status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    code = status[1] if len(status) > 1 and status[0].startswith("HTTP/") else ""
    if code == "407":
        raise AccessDenied(f"{proxy}: the proxy wants a user and password; write http://USER:PASSWORD@HOST:PORT")
    if not code.startswith("2"):
        said = " ".join(status[1:]) if code else "it is no HTTP proxy, or hung up; check [link] proxy"
        raise Unreachable(f"{proxy}: the proxy does not lead to {endpoint}: {said}")
