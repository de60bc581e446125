"""A version is in force when it is named whole: no part of one, no date, no candidate of it."""

import json

import pytest

from agent.cgminer.control.versions import runs, was_another

pytestmark = pytest.mark.agent

BUILD = "2026-04-14-0-912d084c-26.04-plus"


@pytest.mark.parametrize(
    ("shown", "asked", "is_it"),
    [
        (BUILD, BUILD, True),
        (BUILD, "26.04", True),
        (BUILD, "26.04-plus", True),
        *((BUILD, part, False) for part in ("2", "2026-04", "2026", "14", "0", "26.0", "6.04", "plus", "912d084c")),
        ("2026-04-14-0-912d084c-26.04-rc1-plus", "26.04", False),
        ("2026-04-14-0-912d084c-26.04-rc1-plus", "26.04-rc1", True),
        ("26.04-rc1", "26.04", False),
        ("'20210109.22.REL'", "20210109.22.REL", True),
        ("20210109.22.REL", "20210109.22", False),
        ("1.2.7", "1.2.7", True),
        ("1.2.7", "1.2", False),
        ("", "", False),
        ("1.2.7", " ", False),
    ],
)
def test_only_a_whole_name_is_the_version(shown: str, asked: str, is_it: bool) -> None:
    assert runs(shown, asked) is is_it


@pytest.mark.parametrize(
    ("version", "was"), [("1.2.6", True), ("1.2.7", False), ("", False), (None, False), (BUILD, True)]
)
def test_a_change_is_known_only_from_a_known_version(version: str | None, was: bool) -> None:
    assert was_another(json.dumps({"version": version}), "1.2.7") is was


@pytest.mark.parametrize("kept", ["", "no JSON", "[1]", "3", json.dumps({"fw_ver": "1.2.6"})])
def test_what_says_nothing_of_a_version_proves_no_change(kept: str) -> None:
    assert not was_another(kept, "1.2.7")
