"""What the demo's judge accepts of evidence that names a group: a feeder instead of a liar, a neighbour left open."""

from dataclasses import replace

import pytest

from cloud.cli.demo.judge import Claims, hiding
from cloud.cli.demo.watch import TrueMiner
from tests.unit.cloud.test_demo_captures import FIGURES

NOBODY: frozenset[str] = frozenset()
SAID = Claims(verified=NOBODY, named=NOBODY, feeders=frozenset({"f1"}), clouded=frozenset({"m2"}), confirmed_at=None)
HONEST = TrueMiner("m2", dead=False, liar=None, hashing=False, feeder_id="f1")


def _liar(kind: str, feeder_id: str = "f1") -> TrueMiner:
    return TrueMiner("m1", dead=False, liar=kind, hashing=True, feeder_id=feeder_id)


def test_a_liar_that_only_the_meter_sees_is_named_by_its_feeder() -> None:
    assert SAID.names_feeder_of(_liar("reports_idle"))
    assert not SAID.names(_liar("reports_idle"))


@pytest.mark.parametrize("liar", [_liar("ack_without_effect"), _liar("reports_idle", "f2")])
def test_a_liar_that_shows_itself_or_stands_elsewhere_is_not(liar: TrueMiner) -> None:
    assert not SAID.names_feeder_of(liar)


def test_a_liar_named_by_its_own_id_is_not_counted_again() -> None:
    named = replace(SAID, named=frozenset({"m1"}))
    assert named.names(_liar("reports_idle"))
    assert not named.names_feeder_of(_liar("reports_idle"))


@pytest.mark.parametrize(
    ("said", "liars_on"),
    [(SAID, {"f2"}), (replace(SAID, feeders=NOBODY), {"f1"}), (replace(SAID, clouded=NOBODY), {"f1"})],
)
def test_a_stop_is_left_open_rightly_only_beside_a_true_liar_on_a_named_feeder(
    said: Claims, liars_on: set[str]
) -> None:
    assert SAID.clouds(HONEST, {"f1"})
    assert not said.clouds(HONEST, liars_on)


def test_the_run_fails_where_liars_stay_unnamed_or_too_many_honest_stops_stay_open() -> None:
    held = replace(FIGURES, curtailed_miners=100, verified=85, honest_clouded=15, liars=2, liars_named_by_feeder=2)
    assert held.failures() == ()
    assert replace(held, honest_clouded=26).failures() == (
        "26 honest miners cannot be told from a liar on their feeder",
    )
    assert replace(held, liars_named_by_feeder=1).failures() == (
        "1 of 2 liars were named neither by themselves nor by their feeder",
    )


def test_a_liar_at_another_site_excuses_nobody_on_a_feeder_of_the_same_name() -> None:
    elsewhere = replace(SAID, confirmed_at=None)
    assert hiding([(_liar("reports_idle"), elsewhere)], SAID) == set()
    assert hiding([(_liar("reports_idle"), SAID), (_liar("ack_without_effect", "f2"), SAID)], SAID) == {"f1"}
