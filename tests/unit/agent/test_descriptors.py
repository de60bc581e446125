"""The limit of open files is raised as far as it is needed, and no further than the system lets it."""

import resource

import pytest

from agent.descriptors import open_files

pytestmark = pytest.mark.agent

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "allowed", "after"),
    [
        ((256, 4096), 1000, (1000, 4096)),
        ((256, 512), 512, (512, 512)),
        ((256, UNLIMITED), 1000, (1000, UNLIMITED)),
        ((2048, 4096), 1000, (2048, 4096)),
        ((UNLIMITED, UNLIMITED), 1000, (UNLIMITED, UNLIMITED)),
    ],
)
def test_as_many_as_needed(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], allowed: int, after: tuple[int, int]
) -> None:
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: now.append(wanted))
    assert open_files(1000) == allowed
    assert now[-1] == after


def test_a_system_that_refuses_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, UNLIMITED))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files(1000) == 256
