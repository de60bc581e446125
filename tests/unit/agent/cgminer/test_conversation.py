"""A person's look asks nothing twice, and shows nobody the same refused password again."""

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.conversation import Conversation
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.table import Table
from agent.cgminer.wires import Wires
from agent.errors import AccessDenied, TimedOut

pytestmark = pytest.mark.agent

RIGHT, WRONG = Credentials("root", "right"), Credentials("root", "wrong")
TABLE = table_of("antminer")
CONF = "/cgi-bin/get_miner_conf.cgi"


class Page(Wires):
    def __init__(self) -> None:
        super().__init__(Address("192.0.2.1"), Deadlines(), 80, None)
        self.asked: list[str] = []

    async def reply(self, command: str, table: Table) -> bytes:
        self.asked.append(command)
        if command == "summary":
            raise TimedOut("no answer")
        if self.credentials != RIGHT:
            raise AccessDenied("refused")
        return b"{}"


async def test_what_was_refused_is_asked_again_only_as_somebody_else() -> None:
    page = Page()
    talk = Conversation(page)
    await talk.ask(CONF, TABLE)
    assert talk.is_closed(TABLE)
    for who in (WRONG, WRONG, RIGHT, RIGHT):
        page.credentials = who
        await talk.ask(CONF, TABLE)
    assert page.asked == [CONF] * 3, "as a stranger, with the wrong password once, with the right one once"
    assert (talk.replies, talk.errors, talk.is_closed(TABLE)) == ({CONF: b"{}"}, {}, False)


async def test_another_firmwares_page_that_was_closed_to_a_stranger_says_nothing_of_our_password() -> None:
    page = Page()
    talk = Conversation(page)
    with pytest.raises(AccessDenied):
        await talk.tell("/api/v1/info")  # VNish's, asked to learn who is there
    page.credentials = RIGHT
    await talk.ask(CONF, TABLE)
    assert not talk.is_closed(TABLE)
    assert talk.is_closed(table_of("vnish"))


async def test_a_silence_is_not_asked_again_and_is_raised_each_time() -> None:
    page = Page()
    talk = Conversation(page)
    for _ in range(2):
        with pytest.raises(TimedOut):
            await talk.tell("summary")
    assert page.asked == ["summary"]
