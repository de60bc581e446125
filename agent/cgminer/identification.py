"""Which firmware answers at an address: the telling commands are asked until a reply shows it.

Invariant: a firmware shows itself by what only it says. Plain CGMiner is what is left when nothing did. Neither is
certain while a miner answers with failures: in trouble it says too little of itself.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from agent.cgminer.replies import PLAIN, identify, read_sections

TELLING_COMMANDS: Final = ("version", "devdetails", "summary")


class Finding(NamedTuple):
    """The dialect to read a device by. Only a ``certain`` one is worth keeping; none is ``readable`` at no miner."""

    dialect: str
    certain: bool
    readable: bool


async def find_dialect(ask: Callable[[str], Awaitable[bytes | None]]) -> Finding:
    """Return what the replies to ``ask`` show; None is a command that got no reply. Raises what ``ask`` does."""
    replies: dict[str, bytes] = {}
    for command in TELLING_COMMANDS:
        reply = await ask(command)
        if reply is None:
            continue
        replies[command] = reply
        if identify(*replies.values()) != PLAIN:
            break
    sections = read_sections(replies.items())
    dialect = identify(*replies.values())
    whole = bool(sections) and not sections.garbled and len(replies) == len(TELLING_COMMANDS)
    failed = any(status.failed for status in sections.statuses)
    return Finding(
        dialect,
        certain=not failed and (dialect != PLAIN or whole),
        readable=bool(sections or sections.statuses),
    )
