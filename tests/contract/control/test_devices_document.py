"""docs/devices.md names every dialect, how it shows itself and what it can be told."""

import re
from pathlib import Path

import pytest

from agent.cgminer.control.drivers import driver_of
from agent.cgminer.dialects import TABLES
from agent.cgminer.wires import wire_of
from sitelink.types import PowerSource, Verb

pytestmark = pytest.mark.agent

WORDS = {"rpc": "RPC", "web": ("web", "REST", "HTTP", "GraphQL"), "framed": "framed"}


def rows(repository: Path, heading: str) -> dict[str, list[str]]:
    """The rows of the table under ``heading``, by each dialect they name."""
    section = (
        (repository / "docs" / "devices.md").read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    )
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]
    return {dialect: cells for cells in found for dialect in re.findall(r"`([^`]+)`", cells[0])}


def test_every_dialect_is_in_both_tables(repository: Path) -> None:
    assert set(rows(repository, "What is read")) == set(TABLES)
    assert set(rows(repository, "How a firmware shows itself")) == set(TABLES)


@pytest.mark.parametrize("dialect", sorted(TABLES))
def test_the_verbs_are_those_of_the_driver(repository: Path, dialect: str) -> None:
    driver = driver_of(dialect)
    verbs = driver.verbs if driver is not None else frozenset()
    said = rows(repository, "What is read")[dialect][-1]
    if said == "all":
        told = frozenset(Verb)
    elif said.startswith("all but "):
        told = frozenset(Verb) - {Verb(word) for word in said.removeprefix("all but ").split()}
    else:
        told = frozenset(Verb(word) for word in said.split() if word != "none")
    assert told == verbs


@pytest.mark.parametrize("dialect", sorted(TABLES))
def test_the_wires_and_the_power_are_those_of_the_table(repository: Path, dialect: str) -> None:
    table = TABLES[dialect]
    _, _, polled, _, _, power, _ = rows(repository, "What is read")[dialect]
    for command in table.commands.poll:
        words = WORDS[wire_of(command)]
        assert any(word in polled for word in ([words] if isinstance(words, str) else words)), command
    if power == "none":
        assert "power_w" not in table.fields or table.power_source is not PowerSource.DEVICE
    elif power == "device":
        assert table.power_source is PowerSource.DEVICE
