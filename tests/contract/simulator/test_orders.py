"""Every firmware that takes orders, with every fault that changes what an order does: true power, the log, the truth."""

import pytest

from tests.contract.simulator.orders import ORDERS, order
from tests.contract.simulator.world import clock_of, miner_of, power_share, site, until

FIRMWARES = sorted(ORDERS)


class Bench:
    """One miner of one firmware, and what it really draws."""

    def __init__(self, opened, dialect: str) -> None:
        self.opened, self.miner = opened, miner_of(opened, dialect)
        self.name = self.miner.place.miner_id

    async def send(self, verb: str, seconds: float = 60.0) -> None:
        await order(self.opened, self.miner, verb, 0.75 * self.miner.place.model.nameplate_w)
        clock_of(self.opened).advance(seconds)

    def share(self) -> float:
        return power_share(self.opened, self.miner)

    def truth(self) -> dict:
        return next(row for row in self.opened.truth()["miners"] if row["miner_id"] == self.name)

    def last(self) -> dict:
        return self.opened.order_rows()[-1]

    async def fault(self, name: str | None, seconds: float | None = None) -> None:
        await self.opened.set_fault(self.name, name, seconds)

    async def reboot(self) -> None:
        ports = self.opened.listeners[self.name]
        await self.send("reboot", 2)
        await until(lambda: not any(port.is_open for port in ports))
        await until(lambda: all(port.is_open for port in ports), self.opened, 45)


def bench(dialect: str):
    return site(4, dialects=(dialect,))


@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_stop_start_and_limit_do_what_they_say(dialect):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.send("stop")
        assert one.share() < 0.03
        assert (one.truth()["asleep"], one.truth()["hashing"]) == (True, False)
        await one.send("start")
        assert one.share() > 0.97
        await one.send("limit")
        assert 0.6 < one.share() < 0.77
        assert one.truth()["hashing"]
        assert [(row["verb"], row["effect_at"] is not None) for row in opened.order_rows()] == [
            ("stop", True),
            ("start", True),
            ("limit", True),
        ]


@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_a_limit_outlives_a_sleep(dialect):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.send("limit")
        limited = one.share()
        if dialect != "antminer":  # its mode is its sleep: who wakes it says how
            await one.send("stop")
            await one.send("start")
        assert one.share() == pytest.approx(limited, rel=0.02)


@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_a_reboot_takes_away_uptime_and_sessions_and_sleep_only_where_documented(dialect):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.send("stop")
        await one.reboot()
        assert one.truth()["uptime_s"] < 60
        assert (one.truth()["reboots"], one.truth()["away"]) == (1, False)
        assert one.truth()["asleep"] is (dialect != "luxos")
        assert (one.last()["verb"], one.last()["effect_at"] is not None) == ("reboot", True)


@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_who_forgets_its_sleep_is_awake_after_a_reboot(dialect):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.fault("forgets_sleep")
        await one.send("stop")
        await one.reboot()
        clock_of(opened).advance(30)
        assert one.share() > 0.97


async def test_luxos_sleeps_on_where_it_is_a_build_that_does():
    async with bench("luxos") as opened:
        one = Bench(opened, "luxos")
        await one.fault("keeps_sleep")
        await one.send("stop")
        await one.reboot()
        clock_of(opened).advance(30)
        assert (one.truth()["asleep"], one.share() < 0.1) == (True, True)


@pytest.mark.parametrize("verb", ["stop", "limit", "reboot"])
@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_ack_without_effect_leaves_everything_as_it_was(dialect, verb):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        before = {key: value for key, value in one.truth().items() if key in {"mode", "limit_w", "reboots", "asleep"}}
        await one.fault("ack_without_effect")
        await one.send(verb)
        assert one.share() > 0.97
        assert before.items() <= one.truth().items()
        assert (one.last()["verb"], one.last()["effect_at"]) == (verb, None)


@pytest.mark.parametrize(("verb", "least", "most"), [("stop", 0.35, 0.55), ("limit", 0.8, 0.95)])
@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_half_effect_goes_half_the_way(dialect, verb, least, most):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.fault("half_effect")
        await one.send(verb)
        assert least < one.share() < most
        assert one.last()["effect_at"] is None


@pytest.mark.parametrize("verb", ["stop", "limit"])
@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_delayed_acts_when_its_seconds_are_over(dialect, verb):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.fault("delayed", 30)
        await one.send(verb, 29)
        assert one.share() > 0.97
        clock_of(opened).advance(20)
        assert one.share() < 0.8
        assert one.last()["effect_at"] is not None


@pytest.mark.parametrize("dialect", FIRMWARES)
async def test_a_liar_says_that_it_rests(dialect):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.fault("reports_idle")
        await one.send("stop")
        assert one.share() > 0.97
        assert one.miner.snapshot().hashrate_ths == 0
        assert one.truth()["liar"] == "reports_idle"
        await one.reboot()
        clock_of(opened).advance(30)
        assert one.share() > 0.97, "a reboot does not make it honest"


WANT_NO_PASSWORD = {"luxos", "avalon", "braiins"}
"""Whose stop wants none."""


@pytest.mark.parametrize(
    ("dialect", "fault"),
    [(dialect, "access_denied") for dialect in FIRMWARES]
    + [(dialect, "bad_password") for dialect in FIRMWARES if dialect not in WANT_NO_PASSWORD],
)
async def test_who_may_not_order_changes_nothing(dialect, fault):
    async with bench(dialect) as opened:
        one = Bench(opened, dialect)
        await one.fault(fault)
        for verb in ("stop", "limit", "reboot"):
            await one.send(verb)
        assert not opened.orders
        assert one.share() > 0.97
