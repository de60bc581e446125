"""What every test may use: the repository's root, captures of real devices, Hypothesis profiles."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
# Tests start PostgreSQL (a fork, since it changes user) from a process that runs gRPC's threads, whose own handlers
# for forking abort the child. Nothing here speaks gRPC after a fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

IN_CI = os.environ.get("CI", "") not in {"", "0", "false"}

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("developer", deadline=None)
settings.load_profile("ci" if IN_CI else "developer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the stories first, each followed by a short test: several workers then take one story each.

    A worker is handed two tests at the start; two stories in one pair would be played one after the other.
    """
    stories = [item for item in items if item.get_closest_marker("story")]
    others = [item for item in items if not item.get_closest_marker("story")]
    pairs = [item for story in stories for item in (story, *([others.pop()] if others else []))]
    items[:] = pairs + others


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


def shared_folder(name: str) -> Path:
    """A folder of test data beside the repository (BALLAST_SHARED overrides where).

    Absent data skips the test for a developer, who may not have it, and fails it in CI.
    """
    folder = Path(os.environ.get("BALLAST_SHARED", REPOSITORY.parent / "shared")) / name
    if not folder.is_dir():
        message = f"{name} absent: no {folder}; set BALLAST_SHARED to the folder that holds {name}/"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder with real devices' replies and their MANIFEST.csv."""
    return shared_folder("captures")


@pytest.fixture(scope="session")
def markets() -> Path:
    """The folder with real market data and its MANIFEST.csv."""
    return shared_folder("markets")
