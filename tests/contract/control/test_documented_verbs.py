"""The guide's table of what each firmware can be told says what its driver has."""

import pytest

from agent.cgminer.control.drivers import driver_of
from sitelink.inventory import DIALECTS
from sitelink.types import Verb
from tests.architecture.source import REPOSITORY

GUIDE = REPOSITORY / "docs/orders-to-miners.md"


def table() -> dict[str, frozenset[Verb]]:
    """{firmware: verbs} as the guide's first table has them."""
    lines = [line for line in GUIDE.read_text("utf-8").splitlines() if line.startswith("| ")]
    start = next(n for n, line in enumerate(lines) if "stop, start" in line)
    columns = [[Verb(name.strip()) for name in cell.split(",")] for cell in lines[start].strip("| \n").split("|")]
    found: dict[str, frozenset[Verb]] = {}
    for line in lines[start + 1 :]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if len(cells) != len(columns):
            break
        told = [verb for cell, verbs in zip(cells, columns, strict=True) if cell != "-" for verb in verbs]
        found[name.split(" (")[0]] = frozenset(told)
    return found


@pytest.mark.parametrize("firmware", sorted(table()))
def test_the_guide_says_what_a_firmware_can_be_told(firmware: str) -> None:
    driver = driver_of(firmware)
    assert driver is not None
    assert table()[firmware] == driver.verbs


def test_the_guide_names_every_firmware_that_can_be_told_anything() -> None:
    assert set(table()) == {name for name in DIALECTS if driver_of(name) is not None}
