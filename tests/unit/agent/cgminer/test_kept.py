"""What was kept is read back, whatever its text has become."""

import pytest

from agent.cgminer.control.kept import kept_in

pytestmark = pytest.mark.agent


@pytest.mark.parametrize("text", ["", "normal", "[1]", "null", '"a"', '{"mode": ', "[" * 100_000])
def test_a_text_that_is_no_object_says_nothing(text: str) -> None:
    assert kept_in(text) == {}


def test_an_object_is_what_it_says() -> None:
    assert kept_in('{"mode": "low"}') == {"mode": "low"}
