"""What the documents tell people to type is something our programmes understand."""

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import parser as agent_parser
from agent.errors import BadInput
from cloud.cli.main import _parser as cloud_parser
from simulator.cli import _parser as simulator_parser
from tests.conftest import REPOSITORY

PARSERS: dict[str, Callable[[list[str]], argparse.ArgumentParser]] = {
    "ballast": cloud_parser,
    "ballast-agent": lambda _: agent_parser(),
    "ballast-sim": lambda _: simulator_parser(),
}
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
COMMAND = re.compile(r"^\s*(?:sudo (?:-u \S+ )?)?(?:\S*/)?(ballast(?:-agent|-sim)?) (.+)$")


def commands(path: Path) -> list[tuple[str, list[str]]]:
    """(programme, arguments) of every command in a block of ``path``; what is optional there is given here."""
    fenced, found = False, []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        match = COMMAND.match(line) if fenced or line.startswith("    ") else None
        if match:
            text = re.sub(r"\[(--.*?)\]", r"\1", match[2])
            found.append((match[1], shlex.split(text, comments=True)))
    return found


def test_every_link_between_documents_leads_somewhere():
    pages = [REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md", *DOCUMENTS]
    links = [(page, link) for page in pages for link in LINK.findall(page.read_text("utf-8"))]
    assert len(links) > len(pages)
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_list_of_documents_names_each():
    listed = (REPOSITORY / "docs/README.md").read_text("utf-8")
    pages = [path.name for path in (REPOSITORY / "docs").glob("*.md") if path.name != "README.md"]
    assert [name for name in pages if f"]({name})" not in listed] == []


ALL = [(path.name, *command) for path in DOCUMENTS for command in commands(path)]


def test_the_guides_name_commands_of_every_programme():
    assert {programme for _, programme, _ in ALL} == set(PARSERS)
    assert len([name for name, _, _ in ALL if name == "run-the-cloud.md"]) >= 4


@pytest.mark.parametrize(("name", "programme", "arguments"), ALL, ids=lambda value: str(value)[:60])
def test_a_documented_command_is_understood(name, programme, arguments, capsys):
    try:
        PARSERS[programme](arguments).parse_args(arguments)
    except (SystemExit, BadInput) as error:
        pytest.fail(f"{name}: {programme} {shlex.join(arguments)}: {error} {capsys.readouterr().err}")
