"""Which firmware answers at an address: the telling commands are asked until a reply shows it.

Invariant: a firmware shows itself by what only it says. Plain CGMiner is what is left when nothing did, and that is
certain only once every answer could be read and none was a failure: a miner in trouble says too little of itself.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from agent.cgminer.replies import PLAIN, identify, read_sections
from agent.cgminer.sections import Sections

TELLING_COMMANDS: Final = ("version", "devdetails", "summary")


class Finding(NamedTuple):
    """The dialect to read a device by. Only a ``certain`` one is worth keeping; none is ``readable`` at no miner."""

    dialect: str
    certain: bool = True
    readable: bool = True


async def find_dialect(ask: Callable[[str], Awaitable[bytes | None]]) -> Finding:
    """Return what the replies to ``ask`` show; None is a command that got no reply. Raises what ``ask`` does."""
    replies: list[bytes] = []
    for command in TELLING_COMMANDS:
        reply = await ask(command)
        if reply is None:
            continue
        replies.append(reply)
        found = identify(*replies)
        if found != PLAIN:
            return Finding(found)
    sections = read_sections(replies)
    return Finding(PLAIN, certain=_is_whole(sections, len(replies)), readable=bool(sections or sections.statuses))


def _is_whole(sections: Sections, answered: int) -> bool:
    if sections.garbled or answered < len(TELLING_COMMANDS):
        return False
    return bool(sections) and not any(status.failed for status in sections.statuses)
