"""What lives as long as the daemon is none of the garbage collector's business; what comes and goes still is."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from agent import daemon

pytestmark = pytest.mark.agent


class Link:
    """One of two that hold each other."""

    def __init__(self) -> None:
        self.other: Link | None = None


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_was_made_before_is_passed_by_and_a_cycle_made_since_is_collected() -> None:
    before = gc.get_threshold()
    daemon._spare_the_collector()
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_threshold()[0] > before[0]
    one, two = Link(), Link()
    one.other, two.other = two, one
    gone = weakref.ref(one)
    del one, two
    gc.collect()
    assert gone() is None
