"""Orders that must not be obeyed, thrown at the real journal on a real disk: none may be taken, each must be counted.

    forged         signed by a key that the site does not trust, some under the id of one that it does
    mutated        a genuine envelope with one byte of payload, signature, key id or domain changed
    replayed       a genuine command that was carried out, expired and was forgotten, with the clock set back
    stale          a genuine plan with a lower number than the one in force, and a number that is used already
    cross_site     genuine, for another site             cross_enrolment   genuine, for another gateway of this site
    old_epoch      genuine, of a signing epoch that the cloud has closed

Genuine orders are mixed in now and then and must be taken: a journal that refuses everything fails.
"""

import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.buffer import Buffer
from agent.buffer import schema as buffer_schema
from agent.local_curtail.journal import Journal
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.schema import schema
from agent.local_curtail.site_time import SiteTime
from agent.storage import ThreadWriter
from sitelink.clock import ManualClock
from sitelink.orders import write_command, write_plan, write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import Command, Domain, Envelope, Fallback, Interval, SignedTime, SitePlan, Verb
from sitelink.units import Watts
from tests.bench.report import arguments, finish, say
from tests.veiled import Veiled

SITE, AGENT, EPOCH = "pecos-1", "pecos-1-a", 3
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY, NEXT, FOREIGN = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
RULES = SiteRules(SITE, AGENT, frozenset(), 3600.0, Watts(0), Fallback.RUN, 0.0)
MINERS = {"m1": SiteMiner("m1", "F1", None, controllable=True)}
PLAN = SitePlan("p", SITE, AGENT, EPOCH, 1000, 10, T0, Interval(T0, T0 + 12 * HOUR), Fallback.RUN, ())
COMMAND = Command("k", SITE, AGENT, EPOCH, 1, T0, T0 + 6 * HOUR, Verb.STOP, ("m1",), "bench")
EXPECTED = {
    "forged": {"bad_signature"},
    "mutated": {"bad_signature"},
    "replayed": {"already_forgotten"},
    "stale": {"older_than_held", "sequence_reused"},
    "cross_site": {"wrong_site"},
    "cross_enrolment": {"wrong_agent"},
    "old_epoch": {"older_epoch", "older_than_held"},
}


def sealed(order: Command | SitePlan, key: PrivateKey = KEY) -> Envelope:
    """Return ``order`` signed."""
    if isinstance(order, Command):
        return key.sign(Domain.COMMAND, write_command(order))
    return key.sign(Domain.PLAN, write_plan(order))


@dataclass
class Site:
    """A journal on a file of its own, whose time moves when the bench says so."""

    writer: ThreadWriter
    clock: ManualClock
    site_time: SiteTime
    buffer: Buffer
    journal: Journal
    nonces: int = 0

    @classmethod
    async def open(cls, folder: Path) -> "Site":
        writer, clock = ThreadWriter(folder / "agent.db"), ManualClock(T0)
        ids = iter(range(10**9))

        def new_id() -> str:
            return f"id{next(ids)}"

        await writer.run(buffer_schema)
        await writer.run(schema)
        ring = KeyRing((KEY.public_bytes, NEXT.public_bytes))
        site_time = SiteTime(writer, clock, SITE, ring)
        buffer = Buffer(writer, clock, SITE, new_id)
        journal = Journal(writer, buffer, site_time, new_id, RULES, MINERS, ring, lambda: None, Veiled())
        made = cls(writer, clock, site_time, buffer, journal)
        await made.set(T0)
        await journal.load()
        return made

    async def set(self, now: datetime) -> None:
        """Let the cloud say that it is ``now``."""
        self.clock.advance(1000)
        self.nonces += 1
        mono = self.clock.monotonic()
        signed = SignedTime(SITE, f"n{self.nonces}", now)
        assert await self.site_time.learn(KEY.sign(Domain.TIME, write_time(signed)), mono, mono)

    async def take(self, envelope: Envelope) -> None:
        """Have a genuine order taken."""
        before = self.state()
        await self.journal.accept(envelope)
        assert self.state() != before, "a genuine order must be taken"

    def state(self) -> tuple[Any, ...]:
        """Return all that an order could change."""
        return (self.journal.plan, self.journal.commands, self.journal.taken)


class Forger:
    """Makes one false order after another."""

    def __init__(self, rng: random.Random, done: list[Envelope], taken: list[Envelope]) -> None:
        self.rng, self.done, self.taken = rng, done, taken
        self.made = 0

    def make(self, kind: str) -> Envelope:
        """Return an order of ``kind`` that must not be taken."""
        self.made += 1
        makers: dict[str, Callable[[], Envelope]] = {
            "forged": self._forged,
            "mutated": self._mutated,
            "replayed": lambda: self.rng.choice(self.done),
            "stale": self._stale,
            "cross_site": lambda: sealed(self._fresh(site_id=f"odessa-{self.made}")),
            "cross_enrolment": lambda: sealed(self._fresh(agent_id=f"pecos-1-b{self.made}")),
            "old_epoch": lambda: sealed(self._fresh(signing_epoch=self.rng.randint(1, EPOCH - 1))),
        }
        return makers[kind]()

    def _fresh(self, **changes: Any) -> Command | SitePlan:
        number = 10**6 + self.made
        if self.rng.random() < 0.5:
            return replace(PLAN, plan_id=f"f{number}", sequence=number, revision=number, **changes)
        return replace(COMMAND, command_id=f"f{number}", sequence=number, **changes)

    def _forged(self) -> Envelope:
        envelope = sealed(self._fresh(), FOREIGN)
        return replace(envelope, key_id=KEY.key_id) if self.rng.random() < 0.5 else envelope

    def _mutated(self) -> Envelope:
        genuine = sealed(self._fresh())
        part = self.rng.choice(("payload", "signature", "key_id", "domain"))
        if part == "domain":
            other = {Domain.PLAN: Domain.COMMAND, Domain.COMMAND: Domain.PLAN}[genuine.domain]
            return replace(genuine, domain=other)
        if part == "key_id":
            return replace(genuine, key_id=NEXT.key_id)
        raw = bytearray(getattr(genuine, part))
        raw[self.rng.randrange(len(raw))] ^= 1 << self.rng.randrange(8)
        return replace(genuine, **{part: bytes(raw)})

    def _stale(self) -> Envelope:
        if self.rng.random() < 0.5:
            return sealed(replace(PLAN, plan_id=f"s{self.made}", sequence=self.rng.randint(1, 999), revision=99))
        return sealed(replace(COMMAND, command_id=f"s{self.made}", sequence=self.rng.choice((2001, 2002))))


async def run(messages: int, seed: int, folder: Path) -> dict[str, float]:
    """Throw ``messages`` false orders at a journal and return the figures."""
    rng = random.Random(seed)
    site = await Site.open(folder)
    await site.take(sealed(PLAN))
    done = [
        sealed(replace(COMMAND, command_id=f"d{place}", sequence=place, expires_at=T0 + HOUR)) for place in range(1, 21)
    ]
    for envelope in done:
        await site.take(envelope)
    await site.set(T0 + 3 * HOUR)
    await site.journal.drop_expired_commands()
    await site.set(T0)  # the clock is set back: by their dates they hold again
    kept = [sealed(replace(COMMAND, command_id=f"t{number}", sequence=number)) for number in (2001, 2002)]
    for envelope in kept:
        await site.take(envelope)
    forger = Forger(rng, done, kept)
    executed, wrongly, sent = 0, 0, Counter[str]()
    counted = Counter[str](await site.journal.refusals())
    for place in range(messages):
        kind = rng.choice(tuple(EXPECTED))
        before = site.state()
        await site.journal.accept(forger.make(kind))
        executed += site.state() != before
        now_counted = Counter[str](await site.journal.refusals())
        wrongly += set(now_counted - counted) - EXPECTED[kind] != set() or sum((now_counted - counted).values()) != 1
        counted = now_counted
        sent[kind] += 1
        if place % 1000 == 999:
            number = 3000 + place
            await site.take(sealed(replace(COMMAND, command_id=f"g{number}", sequence=number)))
    status = await site.buffer.status()
    for kind, times in sorted(sent.items()):
        say(f"{kind:<16} {times:>6} sent, told apart by {', '.join(sorted(EXPECTED[kind]))}")
    say(f"counted: {dict(counted)}; notices and other items for the cloud: {status.next_seq}")
    figures = {"sent": float(messages), "executed": float(executed), "uncounted": float(wrongly)}
    figures |= {f"counted_{code}": float(times) for code, times in sorted(counted.items())}
    site.writer.close()
    return {**figures, "items_for_the_cloud": float(status.next_seq)}


def main() -> int:
    """Run the bench; fails when one was taken or not counted under its reason."""
    parser = arguments("forgery", "orders that must not be obeyed, against the real journal")
    parser.add_argument("--messages", type=int, default=10_000)
    options = parser.parse_args()
    logging.getLogger("agent").setLevel(logging.ERROR)
    messages = min(options.messages, 1000) if options.quick else options.messages
    with tempfile.TemporaryDirectory(prefix="ballast-forgery-") as folder:
        figures = asyncio.run(run(messages, options.seed, Path(folder)))
    finish("forgery", figures, options.seed)
    return 0 if figures["executed"] == figures["uncounted"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
