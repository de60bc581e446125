import pytest

from simulator.orders import OrderLog, ReceivedOrder
from simulator.physics import Drive, Effect, Goal, Phase, Timing, ambient_c
from sitelink.types import Verb

TIMING = Timing(stop_s=2.0, warm_s=8.0, idle_share=0.015)


def drive(*goals: tuple[Goal, float]) -> Drive:
    made = Drive(TIMING, 0.0)
    for goal, at_s in goals:
        made.head_for(goal, at_s)
    return made


def test_a_new_drive_hashes_at_full_power():
    made = drive()
    assert (made.phase(0), made.share(0), made.hash_share(0)) == (Phase.HASHING, 1.0, 1.0)


@pytest.mark.parametrize(
    ("at_s", "phase", "share", "hashes"),
    [
        (10.0, Phase.STOPPING, 1.0, 0.0),
        (11.0, Phase.STOPPING, 0.5075, 0.0),
        (12.0, Phase.IDLE, 0.015, 0.0),
        (500.0, Phase.IDLE, 0.015, 0.0),
    ],
)
def test_a_stop_takes_stop_s_and_ends_idle(at_s, phase, share, hashes):
    made = drive((Goal.IDLE, 10.0))
    made.advance(at_s)
    assert (made.phase(at_s), made.share(at_s), made.hash_share(at_s)) == (phase, pytest.approx(share), hashes)


def test_a_start_warms_up_before_it_hashes_fully():
    made = drive((Goal.IDLE, 10.0), (Goal.RUN, 20.0))
    made.advance(22.0)
    assert made.phase(22.0) is Phase.STARTING
    assert made.hash_share(21.0) == 0.0
    assert 0.0 < made.hash_share(25.0) < made.hash_share(27.0) < 1.0
    assert (made.phase(28.0), made.share(28.0)) == (Phase.HASHING, 1.0)


def test_what_was_is_kept_for_those_who_show_it_late():
    made = drive((Goal.IDLE, 10.0), (Goal.RUN, 20.0))
    made.advance(40.0)
    late = {at_s: made.leg(at_s).share(at_s) for at_s in (-500.0, 9.0, 11.0, 15.0, 24.0, 40.0)}
    assert late == {
        -500.0: 1.0,
        9.0: 1.0,
        11.0: pytest.approx(0.5075),
        15.0: 0.015,
        24.0: pytest.approx(0.5075),
        40.0: 1.0,
    }
    assert made.leg(9.0).hash_share(9.0) == 1.0
    assert made.leg(15.0).hash_share(15.0) == 0.0


def test_only_the_last_few_changes_are_kept():
    made = drive(*((Goal.IDLE if number % 2 else Goal.RUN, 10.0 * number) for number in range(1, 40)))
    made.advance(400.0)
    assert made.leg(395.0).share(395.0) == made.share(395.0)
    assert made.leg(0.0).share(0.0) in {0.015, 1.0}


def test_energy_is_the_integral_of_power_however_often_it_is_asked():
    often, seldom = drive((Goal.IDLE, 10.0), (Goal.RUN, 20.0)), drive((Goal.IDLE, 10.0), (Goal.RUN, 20.0))
    summed, step = 0.0, 0.01
    for tick in range(4000):
        often.advance(tick * step)
        summed += often.share(tick * step) * step
    seldom.advance(40.0)
    assert seldom.share_seconds(40.0) == pytest.approx(summed, abs=0.02)
    often.advance(40.0)
    assert often.share_seconds(40.0) == pytest.approx(seldom.share_seconds(40.0))


def test_a_later_order_drops_what_was_still_to_come():
    made = drive((Goal.IDLE, 30.0), (Goal.RUN, 10.0))
    made.advance(60.0)
    assert made.phase(60.0) is Phase.HASHING


def test_a_stop_is_effective_when_power_passes_15_percent():
    made, effect = drive(), Effect()
    made.head_for(Goal.IDLE, 10.0, effect)
    made.advance(10.0)
    assert effect.at_s == pytest.approx(10 + 2 * (1 - 0.15) / (1 - 0.015))


def test_a_start_is_effective_when_power_passes_half():
    made, effect = drive((Goal.IDLE, 0.0)), Effect()
    made.head_for(Goal.RUN, 10.0, effect)
    made.advance(10.0)
    assert effect.at_s == pytest.approx(10 + 8 * (0.5 - 0.015) / (1 - 0.015))


def test_an_order_overtaken_before_its_effect_never_has_one():
    made, stop, start = drive(), Effect(), Effect()
    made.head_for(Goal.IDLE, 10.0, stop)
    made.advance(10.5)
    made.head_for(Goal.RUN, 10.5, start)
    made.advance(60.0)
    assert stop.at_s is None
    assert start.at_s == 10.5


def test_repeating_an_order_keeps_the_first_ones_effect():
    made, first, second = drive(), Effect(), Effect()
    made.head_for(Goal.IDLE, 10.0, first)
    made.advance(10.5)
    made.head_for(Goal.IDLE, 10.5, second)
    made.advance(60.0)
    assert first.at_s == second.at_s == pytest.approx(11.726, abs=0.001)


def test_the_log_shows_an_effect_only_once_it_has_happened():
    from tests.contract.simulator.world import NOON

    log = OrderLog(time_scale=1.0)
    log.add(ReceivedOrder("m", Verb.STOP, NOON, 10.0, Effect(11.5)))
    assert [row["effect_at"] for row in log.rows(11.0)] == [None]
    assert [row["effect_at"] for row in log.rows(12.0)] == ["2026-05-08T18:00:01.500000+00:00"]


def test_a_tripped_miner_is_hot_and_does_not_hash():
    made = drive((Goal.TRIPPED, 0.0))
    made.advance(300.0)
    assert made.phase(300.0) is Phase.TRIPPED
    assert made.heat(300.0) > 1.4
    assert made.hash_share(300.0) == 0.0


def test_days_are_warmest_in_the_afternoon():
    assert max(range(24), key=ambient_c) == 16
    assert min(range(24), key=ambient_c) == 4


# -------------------------------------------------------------------- levels


def test_a_limit_ramps_from_one_level_to_another_and_its_effect_is_the_end_of_the_ramp():
    made, effect = drive(), Effect()
    made.relevel(0.8, 10.0, effect)
    made.advance(14.0)
    assert made.share(14.0) == pytest.approx(0.9)
    assert (effect.at_s, made.phase(14.0)) == (18.0, Phase.STARTING)
    made.advance(30.0)
    assert (made.share(30.0), made.hash_share(30.0), made.phase(30.0)) == (0.8, pytest.approx(0.8), Phase.HASHING)


def test_a_limit_for_a_resting_drive_is_there_at_once_and_shows_with_its_start():
    made, effect = drive((Goal.IDLE, 0.0)), Effect()
    made.relevel(0.6, 20.0, effect)
    made.advance(20.0)
    assert effect.at_s == 20.0
    assert made.share(25.0) == pytest.approx(0.015)
    made.head_for(Goal.RUN, 30.0, level=0.6)
    made.advance(50.0)
    assert made.share(50.0) == 0.6


def test_a_limit_lets_what_is_due_later_stand():
    made = drive((Goal.IDLE, 30.0))
    made.relevel(0.7, 10.0)
    made.advance(60.0)
    assert made.phase(60.0) is Phase.IDLE


def test_hashing_never_jumps_up_while_power_falls():
    made = drive()
    made.relevel(0.5, 10.0)
    made.advance(10.0)
    shares = [made.hash_share(10.0 + step * 0.1) for step in range(100)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1.0, pytest.approx(0.5))


def test_energy_under_a_limit_is_the_integral_of_power():
    often, seldom = drive(), drive()
    summed, step = 0.0, 0.01
    for made in (often, seldom):
        made.relevel(0.75, 10.0)
        made.head_for(Goal.IDLE, 25.0)
    for tick in range(4000):
        often.advance(tick * step)
        summed += often.share(tick * step) * step
    seldom.advance(40.0)
    assert seldom.share_seconds(40.0) == pytest.approx(summed, abs=0.02)


def test_a_start_under_a_limit_counts_from_half_of_it():
    made, effect = drive((Goal.IDLE, 0.0)), Effect()
    made.head_for(Goal.RUN, 20.0, effect, 0.6)
    made.advance(20.0)
    assert effect.at_s is not None
    assert made.share(effect.at_s) == pytest.approx(0.3)
