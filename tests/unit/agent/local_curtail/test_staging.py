"""New firmware goes rack by rack, and a rack that is not whole holds back all that follow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail.staging import Staged, staged
from sitelink.types import Outcome

pytestmark = pytest.mark.agent

MINERS = ("a1", "a2", "b1", "a3", "c1")
RACKS = {"a1": "A", "a2": "A", "a3": "A", "b1": "B", "c1": "C"}
DONE, FAILED = Outcome.COMPLETE, Outcome.UNVERIFIED


@pytest.mark.parametrize(
    ("ended", "turn"),
    [
        ({}, Staged(("a1", "a2", "a3"), ())),
        ({"a1": DONE, "a3": DONE}, Staged(("a2",), ())),
        ({"a1": FAILED}, Staged(("a2", "a3"), ())),  # its own rack is seen to the end
        ({"a1": DONE, "a2": DONE, "a3": DONE}, Staged(("b1",), ())),
        ({"a1": DONE, "a2": DONE, "a3": FAILED}, Staged((), ("b1", "c1"))),
        ({"a1": DONE, "a2": DONE, "a3": DONE, "b1": Outcome.PARTIAL}, Staged((), ("c1",))),
        (dict.fromkeys(MINERS, DONE), Staged((), ())),
    ],
)
def test_whose_turn_it_is(ended: dict[str, Outcome], turn: Staged) -> None:
    assert staged(MINERS, RACKS, ended) == turn


def test_a_miner_without_a_rack_is_a_rack_of_its_own() -> None:
    assert staged(("x", "y"), {"x": ""}, {}) == Staged(("x",), ())


names = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(names, st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["", "A", "B", "C"])), st.data())
def test_no_rack_begins_before_all_before_it_are_whole(
    order: list[str], racks: dict[str, str], data: st.DataObject
) -> None:
    ended: dict[str, Outcome] = {}
    began: list[str] = []
    while (turn := staged(order, racks, ended)).now:
        assert not turn.never
        for miner_id in turn.now:
            for earlier in began:
                if (racks.get(earlier) or earlier) != (racks.get(miner_id) or miner_id):
                    assert ended[earlier] is DONE
        chosen = data.draw(st.sampled_from(turn.now))
        began.append(chosen)
        ended[chosen] = data.draw(st.sampled_from([DONE, DONE, DONE, FAILED]))
    assert set(began) | set(turn.never) == set(order)
    assert not set(began) & set(turn.never)
