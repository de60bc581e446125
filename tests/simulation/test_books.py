"""Writes that wait for each other share a transaction, and none is built upon what has not been written."""

import asyncio
import dataclasses
import random

from agent.local_curtail.books import Books, Entry
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.schema import schema
from agent.storage import StorageFull
from sitelink.types import Verb
from tests.simulation.loop import run
from tests.simulation.world import Life, SimOutbox, SimWriter, World


class SiteTime:
    def __init__(self, world):
        self._world = world

    def now(self):
        return self._world.true_time(), None


def played(work):
    async def main(virtual):
        world = World(virtual, 1, [], set())
        schema(world.disk)
        writer = SimWriter(world, Life())
        books = Books(writer, SimOutbox(), world.next_id, SiteTime(world))
        transactions = []
        write = books._write
        books._write = lambda *facts: (transactions.append(1), write(*facts))[1]
        return await work(books, world), len(transactions)

    return run(main, random.Random(1))


def stop(name, number=0):
    return MinerRecord(name, Verb.STOP, "c1", 1, "price", sent_no=number)


def test_those_who_wait_share_one_transaction():
    async def work(books, _):
        await asyncio.gather(*(books.apply(lambda n=n: Entry(miners=[stop(f"m{n}")])) for n in range(50)))
        return len(books.miners)

    assert played(work) == (50, 1)


def test_one_who_changes_what_another_does_builds_upon_it():
    async def work(books, _):
        def count():
            known = books.miners.get("m1")
            return Entry(miners=[stop("m1", 1 if known is None else known.sent_no + 1)])

        assert all(await asyncio.gather(*(books.apply(count) for _ in range(5))))
        return books.miners["m1"].sent_no

    assert played(work) == (5, 5)


def test_one_who_fails_to_build_fails_alone():
    async def work(books, _):
        def broken():
            raise KeyError("gone")

        done = await asyncio.gather(
            books.apply(lambda: Entry(miners=[stop("m1")])), books.apply(broken), books.apply(lambda: None),
            books.apply(lambda: Entry(miners=[stop("m2")])), return_exceptions=True,
        )  # fmt: skip
        return [repr(one) for one in done], sorted(books.miners)

    assert played(work) == ((["True", "KeyError('gone')", "False", "True"], ["m1", "m2"]), 1)


def test_on_a_full_disk_each_is_told_and_only_starts_count():
    async def work(books, world):
        world.disk_full = True
        start = dataclasses.replace(stop("m2"), verb=Verb.START)
        done = await asyncio.gather(
            books.apply(lambda: Entry(miners=[stop("m1")])), books.apply(lambda: Entry(miners=[start])),
            return_exceptions=True,
        )  # fmt: skip
        world.disk_full = False
        await books.apply(lambda: Entry(miners=[stop("m3")]))
        kept = {row[0] for row in world.disk.execute("SELECT miner_id FROM curtail_miners")}
        return isinstance(done[0], StorageFull), done[1], sorted(books.miners), sorted(kept)

    assert played(work)[0] == (True, True, ["m2", "m3"], ["m2", "m3"])


def test_every_part_of_an_entry_is_taken_into_a_shared_transaction():
    """A field that ``add`` forgets would be written by nobody."""
    whole, later = Entry(), Entry()
    for part in dataclasses.fields(Entry):
        setattr(later, part.name, {"x": "y"} if part.name == "marks" else ["x"])
    whole.add(later)
    assert whole == later
