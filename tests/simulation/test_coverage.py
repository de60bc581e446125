"""Histories that never reach a rare state prove nothing about it; a seed that does not replay proves nothing at all."""

from collections import Counter

from tests.simulation.history import generate, play
from tests.simulation.invariants import rare_states

RARE = (
    "crash before commit", "crash after commit", "crash before stop", "crash after stop", "crash before start",
    "crash after start", "crash at a time", "cold boot", "notice fallback_started", "notice liar_named",
    "notice self_woken", "notice feeder_disagrees", "notice plan_refused", "outcome stop expired",
    "reason feeder_did_not_drop", "reason still_hashing", "reason unreachable", "reason feeder_meter_silent",
)  # fmt: skip


def test_the_histories_reach_every_rare_state():
    reached: Counter = Counter()
    for seed in range(60):
        reached.update(rare_states(play(generate(seed))))
    assert [state for state in RARE if not reached[state]] == []


def test_a_seed_replays_exactly():
    for seed in (4, 17, 83):
        first, again = play(generate(seed)), play(generate(seed))
        assert first.world.device_log == again.world.device_log
        assert first.world.outbox() == again.world.outbox()
