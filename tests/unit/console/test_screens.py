"""View models: counts add up, every figure of a screen agrees with every other, and sentences say the right thing."""

from base64 import b64decode
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from cloud.api.source import PlannedStop, PlanSlot
from cloud.api.views import series
from cloud.api.views.alerts import SETTLING
from cloud.api.views.fleet import build_fleet
from cloud.api.views.formats import power_gap
from cloud.api.views.listing import PAGE_SIZE, Show, list_miners
from cloud.api.views.miner import build_miner
from cloud.api.views.miners import MinerClass, cell_changes, classes, classify, draw_racks, take_census
from cloud.api.views.plan import build_plan
from cloud.api.views.site import build_site, choose_window
from cloud.api.views.wording import Level, text_of
from cloud.hosting.model import Desired
from sitelink.types import CurtailmentCause, Interval, MinerState, Notice, NoticeCode, Reason
from sitelink.units import Celsius, UsdPerPetahashDay, Watts
from tests.unit.console.fakes import (
    NOW,
    PRINCIPAL,
    RATE,
    FakeReads,
    SiteCase,
    check,
    columns,
    huge_site,
    live_link,
    lost_site,
    miner,
    never_site,
    normal_site,
    shedding_site,
    silent,
    stopped,
)

HASHPRICE = UsdPerPetahashDay(50)
SIX_HOURS = timedelta(hours=6)


def read(case):
    return FakeReads([case]).site(PRINCIPAL, case.site_id, SIX_HOURS)


def screen(case, window=None):
    return build_site(read(case), window, HASHPRICE)


@pytest.mark.parametrize("case", [normal_site, shedding_site, lost_site, huge_site, never_site])
def test_counts_add_up_and_the_map_shows_the_same(case):
    shown = screen(case())
    census = shown.census
    assert census.total == len(case().rows)
    kinds = [cell & 7 for cell in shown.racks.cells[0::3]]
    by_map = [kinds.count(kind) for kind in MinerClass]
    assert by_map == [census.running, census.stopped, census.mismatch, census.off, census.unknown]
    assert sum(size for _, size in shown.racks.layout.racks) == len(shown.racks.layout.miner_ids) == census.total
    assert b64decode(shown.racks.text) == shown.racks.cells


def test_every_state_has_exactly_one_class():
    found = {
        (state, desired, liar): classify(miner(0, state=state, desired=desired, liar=liar))
        for state in MinerState
        for desired in Desired
        for liar in (False, True)
    }
    assert found[MinerState.IDLE, Desired.STOP, True] is MinerClass.MISMATCH
    assert found[MinerState.IDLE, Desired.STOP, False] is MinerClass.STOPPED
    assert found[MinerState.HASHING, Desired.STOP, False] is MinerClass.MISMATCH
    assert found[MinerState.HASHING, Desired.RUN, False] is MinerClass.RUNNING
    assert found[MinerState.IDLE, Desired.RUN, False] is MinerClass.OFF
    assert {kind for (state, _, _), kind in found.items() if state is MinerState.UNKNOWN} == {MinerClass.UNKNOWN}


def test_columns_and_rows_class_alike_and_carry_the_same_values():
    case = shedding_site()
    miners = columns(*case.rows)
    assert [MinerClass(kind) for kind in classes(miners)] == [classify(row) for row in miners]
    rows = normal_site().rows
    miners = columns(*rows)
    assert tuple(miners) == rows
    assert miners[7] == rows[7] == miners.find(rows[7].miner_id)
    assert miners[3:5] == list(rows[3:5])
    assert miners.find("nobody") is None


def test_sums_leave_out_the_silent_and_are_unknown_without_anybody():
    census = take_census(columns(miner(0), silent(1), miner(2, power_w=None)))
    assert (census.power_w, census.power_reporting, census.reporting) == (3400.0, 1, 2)
    assert take_census(columns(silent(1))).power_w is None
    assert take_census(columns()).hashrate_ths is None


def test_an_unknown_nameplate_is_said_and_never_counts_as_zero():
    bare = miner(1, nameplate_w=None, nameplate_ths=None)
    assert draw_racks(columns(bare)).cells == bytes((MinerClass.RUNNING, 62, 255))
    census = take_census(columns(miner(0), bare, stopped(2, nameplate_ths=None)))
    assert (census.expected_ths, census.expected_unknown) == (RATE, 1)
    assert take_census(columns(bare)).expected_ths is None
    words = text_of(screen(SiteCase(rows=(miner(0), bare))).tiles[1].against)
    assert "without 1 nameplate not known" in words
    assert "%" not in words
    assert "expected not known" in text_of(screen(SiteCase(rows=(bare,))).tiles[1].against)
    reads = FakeReads([SiteCase(rows=(bare,))])
    shown = build_miner(reads.miner(PRINCIPAL, "pecos-1", bare.miner_id, SIX_HOURS), "6h")
    assert [text_of(tile.against) for tile in shown.tiles[:2]] == ["nameplate not known", "nameplate not known"]
    assert "plans leave it out" in shown.control


def test_verdict_tile_chart_end_and_alarm_say_the_same():
    shown = screen(shedding_site())
    assert text_of(shown.verdict.headline).startswith("Shedding, 0.061 MW short of target; ends ")
    assert "67 of 70 stops confirmed, 3 not" in text_of(shown.verdict.detail)
    power = shown.tiles[0]
    assert str(power.figure) == "0.698 MW"
    assert text_of(power.against) == "target 0.637 MW · +0.061 MW"
    assert shown.tick()["power"] == pytest.approx(0.698, abs=0.0005)
    short = next(alert for alert in shown.alerts if "short" in text_of(alert.title))
    assert text_of(short.title) == "0.061 MW short of the planned shed"
    assert shown.verdict.level is shown.alerts[0].level is Level.CRITICAL


def test_liars_are_named_once_and_never_counted_as_stopped():
    shown = screen(shedding_site())
    liars = next(alert for alert in shown.alerts if "did not" in text_of(alert.title))
    assert liars.subjects == shown.census.liars
    assert len(liars.subjects) == 2
    assert sum(cell >> 3 for cell in shown.racks.cells[0::3]) == 2
    told = tuple(Notice(f"l{n}", NOW, NoticeCode.LIAR_NAMED, shedding_site().rows[n].miner_id, "") for n in (20, 1, 2))
    (again,) = (a for a in screen(replace(shedding_site(), notices=told)).alerts if "did not" in text_of(a.title))
    assert text_of(again.consequence).endswith(" 4 named, 2 cleared since by a proven stop.")
    honest = next(alert for alert in shown.alerts if "should be off" in text_of(alert.title))
    assert text_of(honest.title) == "1 miner runs that should be off"


def test_a_normal_site_is_normal():
    shown = screen(normal_site())
    assert (shown.verdict.level, shown.alerts) == (Level.NORMAL, ())
    assert text_of(shown.verdict.headline) == "Running to plan."
    assert text_of(shown.verdict.detail).startswith("Next: 62 miners stop at ")


def test_ramping_down_is_no_alarm_yet():
    rows = tuple(miner(n, desired=Desired.STOP) if n < 5 else miner(n) for n in range(50))
    case = SiteCase(rows=rows, stop=(-SETTLING / 2, timedelta(hours=1)))
    shown = screen(case)
    assert text_of(shown.verdict.headline).startswith("Ramping down")
    assert shown.alerts == ()


def test_silent_miners_that_the_plan_counts_raise_no_alarm():
    rows = tuple(silent(n) if n < 12 else miner(n) for n in range(250))
    shown = screen(SiteCase(rows=rows, power_w=238 * 3400 * 1.03))
    assert (shown.verdict.level, shown.alerts) == (Level.NORMAL, ())
    assert text_of(shown.verdict.headline) == "Running to plan."
    assert text_of(shown.tiles[0].against) == "plan 0.875 MW · −0.042 MW, 12 miners not known"
    assert shown.tiles[0].level is Level.NORMAL


@pytest.mark.parametrize("power_w", [700_000.0, 900_000.0, 950_000.0])
def test_tile_and_alarm_have_one_level_and_the_figures_subtract(power_w):
    shown = screen(replace(normal_site(), power_w=power_w))
    off = [alert.level for alert in shown.alerts if " the plan" in text_of(alert.title)]
    assert [shown.tiles[0].level] == (off or [Level.NORMAL])
    assert str(power_gap(Watts(781_600), Watts(807_600), sign=True)) == "−0.026 MW"
    assert str(power_gap(Watts(101_234_000), Watts(99_876_000))) == "1.32 MW"
    assert not power_gap(None, Watts(1.0)).known


def test_the_alarm_that_colours_the_sentence_is_named_in_it():
    rows = tuple(miner(n, liar=n == 3, desired=Desired.RUN) for n in range(100))
    shown = screen(SiteCase(rows=rows, power_w=600_000.0))
    assert shown.verdict.level is Level.HIGH
    assert "1 miner says it stopped and did not" in text_of((*shown.verdict.headline, *shown.verdict.detail))


def test_beyond_the_priced_hours_the_plan_runs_everything():
    from cloud.api.reads import fill_after

    window = Interval(NOW + timedelta(minutes=70), NOW + timedelta(minutes=80))
    stop = PlannedStop("c", CurtailmentCause.MUST_SHED, window, ("m",), None, Watts(300.0))
    grid = (PlanSlot(Interval(NOW, NOW + timedelta(hours=1)), Watts(700.0)),)
    filled = fill_after(NOW + timedelta(hours=2), (stop,), grid)
    assert [slot.planned_w for slot in filled] == [700.0, 700.0, 400.0, 700.0]
    assert filled[-1].interval.end == NOW + timedelta(hours=2)
    assert fill_after(NOW, (), ()) == ()
    was = read(normal_site())
    ended = tuple(slot for slot in was.prices if slot.interval.end <= NOW)
    shown = build_plan(replace(was, prices=ended), None)
    assert text_of(shown.tiles[0].against) == "priced until 20:00 UTC"
    bare = build_site(replace(was, plan=replace(was.plan, slots=())), None, HASHPRICE)
    assert text_of(bare.tiles[0].against) == "by plan everything runs"
    assert text_of(bare.verdict.headline) == "Running to plan."


def test_a_curtailment_without_a_known_target_is_not_called_a_running_site():
    was = read(shedding_site())
    shown = build_site(replace(was, plan=replace(was.plan, slots=())), None, HASHPRICE)
    assert text_of(shown.tiles[0].against) == "target not known"


def test_a_ramping_fleet_does_not_run_to_plan():
    rows = tuple(miner(n, desired=Desired.STOP) if n < 100 else miner(n) for n in range(250))
    down = SiteCase(rows=rows, stop=(-SETTLING / 2, timedelta(hours=1)))
    shown = build_fleet(FakeReads([down, replace(down, site_id="b", name="B")]).fleet(PRINCIPAL))
    assert text_of(shown.verdict.headline) == "2 sites ramping down; 0.680 MW to go."
    assert "Ramping down, 0.340 MW to go" in text_of(shown.verdict.detail)
    assert "100 still on, should be off" in shown.sites[0].detail
    up = SiteCase(rows=tuple(stopped(n, desired=Desired.RUN) if n < 50 else miner(n) for n in range(250)),
                  stop=(timedelta(minutes=-60), -SETTLING / 2))  # fmt: skip
    assert text_of(build_fleet(FakeReads([up]).fleet(PRINCIPAL)).verdict.headline).startswith("1 site restoring; ")


def test_restoring_says_how_many_are_still_off():
    rows = tuple(stopped(n, desired=Desired.RUN, reason=Reason.STARTING) if n < 5 else miner(n) for n in range(50))
    case = SiteCase(rows=rows, stop=(timedelta(minutes=-60), timedelta(seconds=-20)))
    assert text_of(screen(case).verdict.headline).startswith("Restoring, 5 of 12 miners still off; released at ")


def test_a_lost_site_link_is_unknown_and_says_which_plan_is_held():
    shown = screen(lost_site())
    assert shown.verdict.level is Level.UNKNOWN
    assert "plan revision 7" in text_of(shown.verdict.detail)
    assert [text_of(alert.title)[:14] for alert in shown.alerts] == ["Site link lost"]
    assert all(not tile.figure.known for tile in shown.tiles)
    assert shown.link.state == "lost"


def test_behind_a_lost_link_no_page_shows_a_figure_as_live():
    case = shedding_site()
    case = replace(case, link=replace(live_link(), up=False, last_heard=NOW - timedelta(seconds=40)))
    shown = screen(case)
    assert (shown.census.unknown, shown.census.total) == (250, 250)
    assert {cell & 7 for cell in shown.racks.cells[0::3]} == {MinerClass.UNKNOWN}
    assert not any(tile.figure.known for tile in shown.tiles)
    assert text_of(shown.tiles[3].against).startswith("none of 250 heard since ")
    assert shown.tick()["power"] is None
    assert [alert.level for alert in shown.alerts if alert.level is not Level.HIGH] == [Level.UNKNOWN]
    (line,) = build_fleet(FakeReads([case]).fleet(PRINCIPAL)).sites
    assert line.verdict == shown.verdict
    assert not any(figure.known for figure in (line.power, line.deviation, line.hashrate, line.miners))
    assert list_miners(read(case), Show.UNKNOWN, 1).counts[Show.UNKNOWN] == 250
    assert build_plan(read(case), None).verdict.level is Level.UNKNOWN
    one = build_miner(FakeReads([case]).miner(PRINCIPAL, "pecos-2", case.rows[100].miner_id, SIX_HOURS), None)
    assert text_of(one.verdict.headline).startswith("State not known; last read at ")


def late_site(newest=timedelta(seconds=61), batches=192):
    rows = tuple(replace(row, read_at=NOW - newest) for row in shedding_site().rows)
    return replace(shedding_site(), rows=rows, link=replace(live_link(), backlog_batches=batches))


def test_a_replayed_backlog_does_not_pass_for_now():
    case = late_site()
    shown = screen(case)
    assert text_of(shown.verdict.headline) == "Catching up: figures are from 20:04:06 UTC, 192 batches waiting."
    assert not any(tile.figure.known for tile in shown.tiles)
    assert text_of(shown.tiles[3].against) == "newest figures are from 20:04:06 UTC"
    assert (shown.census.unknown, shown.tick()["power"]) == (250, None)
    assert not any("answer" in text_of(alert.title) for alert in shown.alerts)
    assert shown.link.state == "live, catching up"
    (line,) = build_fleet(FakeReads([case]).fleet(PRINCIPAL)).sites
    assert line.verdict == shown.verdict
    assert not any(figure.known for figure in (line.power, line.deviation, line.hashrate, line.miners))
    assert "1 catching up" in text_of(build_fleet(FakeReads([case]).fleet(PRINCIPAL)).tiles[3].against)
    assert list_miners(read(case), Show.UNKNOWN, 1).counts[Show.UNKNOWN] == 250
    assert text_of(build_plan(read(case), None).verdict.headline) == text_of(shown.verdict.headline)
    one = build_miner(FakeReads([case]).miner(PRINCIPAL, "pecos-2", case.rows[100].miner_id, SIX_HOURS), None)
    assert text_of(one.verdict.headline).startswith("State not known; last read at ")


@pytest.mark.parametrize("case", [late_site(batches=1), late_site(newest=timedelta(seconds=5))])
def test_a_few_batches_on_their_way_or_a_young_reading_are_no_backlog(case):
    assert screen(case).tiles[0].figure.known


@pytest.mark.parametrize("case", [normal_site, shedding_site, lost_site, huge_site, never_site])
def test_the_overview_says_what_the_site_page_says(case):
    shown = screen(case())
    fleet = build_fleet(FakeReads([case()]).fleet(PRINCIPAL))
    assert fleet.sites[0].verdict == shown.verdict
    assert fleet.verdict.level is shown.verdict.level
    if shown.census.reporting:
        assert fleet.tiles[2].figure == shown.tiles[3].figure
        assert fleet.sites[0].detail == text_of(shown.tiles[3].against)


def test_devices_that_report_no_power_make_no_gap():
    rows = (*(miner(n) for n in range(80)), *(miner(n, power_w=None) for n in range(80, 100)))
    shown = screen(SiteCase(rows=rows, power_w=100 * 3400 * 1.03))
    assert shown.alerts == ()
    assert "The other 20 report no power" in text_of(shown.link.meter_check)


def test_a_hot_miner_is_critical_on_its_own_page_too():
    case = SiteCase(rows=(miner(0, board_temp_c=Celsius(91.0)),))
    shown = build_miner(FakeReads([case]).miner(PRINCIPAL, "pecos-1", case.rows[0].miner_id, SIX_HOURS), None)
    assert shown.verdict.level is Level.CRITICAL
    assert text_of(shown.verdict.headline) == "Running at 91.0 °C, limit 85 °C."


def test_last_known_power_is_dated():
    case = replace(normal_site(), link=replace(live_link(), up=False))
    was = read(case)
    shown = build_site(replace(was, summary=replace(was.summary, power_w=None)), None, HASHPRICE)
    assert not shown.tiles[0].figure.known
    assert text_of(shown.tiles[0].against).startswith("last known 0.868 MW at 20:05")


def test_a_site_never_heard_of_asks_for_its_agent():
    link = replace(live_link(), up=False, last_heard=None)
    assert text_of(screen(replace(normal_site(), link=link)).verdict.headline) == "No agent has reported yet."
    assert text_of(screen(never_site()).verdict.headline) == "No miners yet."


def test_many_silent_miners_are_one_alarm():
    rows = tuple(silent(n) if n < 20 else miner(n) for n in range(100))
    titles = [text_of(alert.title) for alert in screen(SiteCase(rows=rows)).alerts]
    assert "20 of 100 miners do not answer" in titles


def test_meter_and_devices_far_apart_is_an_alarm_but_not_while_devices_are_silent():
    rows = tuple(miner(n) for n in range(100))
    case = SiteCase(rows=rows, power_w=100 * 3400 * 1.2)
    assert any("apart" in text_of(alert.title) for alert in screen(case).alerts)
    case = SiteCase(rows=(*rows[1:], silent(0)), power_w=100 * 3400 * 1.2)
    assert not any("apart" in text_of(alert.title) for alert in screen(case).alerts)


def test_a_refused_plan_is_an_alarm_with_its_reason():
    refusal = Notice(
        "n1", NOW - timedelta(minutes=1), NoticeCode.PLAN_REFUSED, "plan-7", "valid.end is before the last release"
    )
    case = replace(normal_site(), notices=(refusal,), link=replace(live_link(), plan_revision=6))
    alert = next(a for a in screen(case).alerts if "refused" in text_of(a.title))
    assert "valid.end is before the last release" in text_of(alert.consequence)


def test_a_journal_that_does_not_fit_together_is_an_alarm():
    found = read(normal_site())
    assert not any("journal" in text_of(a.title) for a in build_site(found, None, HASHPRICE).alerts)
    found = replace(found, journal_faults=("2 different entries 7", "entries 9 to 12 are missing"))
    alert = next(a for a in build_site(found, None, HASHPRICE).alerts if "journal" in text_of(a.title))
    assert text_of(alert.consequence).startswith("2 different entries 7 and 1 more.")


def test_heat_is_critical_and_named_in_the_sentence():
    rows = (miner(0, board_temp_c=Celsius(91.0)), *(miner(n) for n in range(1, 20)))
    shown = screen(SiteCase(rows=rows))
    assert shown.verdict.level is Level.CRITICAL
    assert text_of(shown.verdict.headline) == "Running. 1 miner is at 85 °C or above."


def test_racks_are_in_natural_order():
    rows = [miner(n, rack=rack) for n, rack in enumerate(("C10-R1", "C2-R10", "C2-R9", "机房-1"))]
    assert [name for name, _ in draw_racks(columns(*rows)).layout.racks] == ["C2-R9", "C2-R10", "C10-R1", "机房-1"]


def test_a_rack_is_drawn_by_position_whatever_the_ids():
    rows = [miner(n, rack="C1", position=position) for n, position in enumerate((3, 1, 2))]
    assert draw_racks(columns(*rows)).layout.miner_ids == tuple(rows[place].miner_id for place in (1, 2, 0))


def test_cells_of_unknown_values_are_not_zero():
    cells = draw_racks(columns(silent(0), miner(1, hashrate_ths=None, board_temp_c=None, chip_temp_c=None))).cells
    assert cells == bytes((MinerClass.UNKNOWN, 255, 255, MinerClass.RUNNING, 255, 255))


def test_cell_changes_rebuild_the_new_map():
    old = draw_racks(columns(*(miner(n) for n in range(300)))).cells
    new = draw_racks(columns(*(silent(n) if n in {3, 299} else miner(n) for n in range(300)))).cells
    changes = cell_changes(old, new)
    assert changes is not None and len(changes) == 10
    rebuilt = bytearray(old)
    for at in range(0, len(changes), 5):
        place = int.from_bytes(changes[at : at + 2], "little")
        rebuilt[3 * place : 3 * place + 3] = changes[at + 2 : at + 5]
    assert bytes(rebuilt) == new
    assert cell_changes(old, old + b"\0\0\0") is None
    assert cell_changes(b"\0\0\0", b"\1\1\1") is None


def test_series_share_one_axis_and_keep_gaps():
    axis = series.axis_around(NOW, timedelta(hours=1), timedelta(minutes=30))
    now_s = NOW.timestamp()
    values = series.means(axis, np.array([now_s, now_s, now_s - 9 * 3600]), np.array([5.0, np.nan, 1.0]))
    assert len(values) == len(axis.seconds) == axis.count
    assert values[axis.place(NOW)] == 5.0
    assert sum(value is not None for value in values) == 1
    assert axis.place(NOW + timedelta(days=1)) is None


def test_planned_load_holds_over_its_slot_and_not_beyond():
    axis = series.axis_around(NOW, timedelta(hours=1), timedelta(minutes=30))
    slot = PlanSlot(Interval(NOW, NOW + timedelta(minutes=10)), Watts(5.0))
    planned = series.planned_power(axis, [slot])
    inside = [value for value, second in zip(planned, axis.seconds, strict=True) if slot.interval.start.timestamp() <= second < slot.interval.end.timestamp()]  # fmt: skip
    assert set(inside) == {5.0}
    assert sum(value is not None for value in planned) == len(inside)


def test_a_step_stands_at_its_slots_own_edges():
    axis = series.axis_around(NOW, timedelta(minutes=5), timedelta(minutes=2))
    at = [NOW + timedelta(seconds=s) for s in (-400, -33, 7, 20, 40)]
    spans = [Interval(at[0], at[1]), Interval(at[1], at[2]), Interval(at[3], at[4])]
    drawn = series.steps(axis, list(zip(spans, (1.0, 2.0, 3.0), strict=True)))
    second = [int(moment.timestamp()) for moment in at]
    assert drawn == (
        (axis.first_s, 1.0), (second[1], 2.0), (second[2], 2.0), (second[2] + 0.5, None),
        (second[3], 3.0), (second[4], 3.0), (second[4] + 0.5, None),
    )  # fmt: skip
    assert series.steps(axis, [(Interval(NOW - SIX_HOURS, NOW - SIX_HOURS / 2), 1.0)]) == ()


def test_a_check_is_whole_only_where_every_stop_and_the_energy_are_verified():
    was = replace(check(), verified_mwh=0.00311, expected_mwh=0.00644, complete=54, unverified=6)
    (line,) = build_plan(read(replace(normal_site(), checks=(was,))), None).checks
    assert (line.level, line.result) == (Level.LOW, "48 % verified")
    assert (str(line.verified), line.shortfall) == ("3.11 kWh", "6 of 60 stops not confirmed")
    (line,) = build_plan(read(normal_site()), None).checks
    assert (line.level, line.result, line.shortfall) == (Level.NORMAL, "92 % verified", "")
    (line,) = build_plan(read(replace(normal_site(), checks=(replace(check(), verified_mwh=0.1),))), None).checks
    assert (line.level, line.shortfall) == (Level.LOW, "the meter shows less than the plan expected")


def test_a_young_site_gets_a_short_window():
    assert choose_window(read(replace(normal_site(), history=timedelta(minutes=4)))) == "5m"
    assert choose_window(read(replace(normal_site(), history=timedelta(minutes=14)))) == "15m"
    assert choose_window(read(replace(normal_site(), history=timedelta(minutes=40)))) == "1h"
    assert choose_window(read(normal_site())) == "6h"


def test_chart_ends_at_the_metered_tile():
    shown = screen(normal_site(), "1h")
    place = shown.chart.axis.place(NOW)
    assert shown.chart.power_mw[place] == pytest.approx(shown.tick()["power"], rel=0.02)
    assert all(value is None for value in shown.chart.power_mw[place + 1 :])


def test_fleet_puts_the_abnormal_first_and_sums_only_what_is_known():
    case = replace(shedding_site(), power_w=800_000.0)
    shown = build_fleet(FakeReads([normal_site(), case, lost_site()]).fleet(PRINCIPAL))
    assert [line.summary.site_id for line in shown.sites] == ["pecos-2", "odessa", "pecos-1"]
    assert text_of(shown.verdict.headline) == "2 of 3 sites need attention."
    assert text_of(shown.tiles[0].against) == "2 of 3 meters report"
    assert shown.sites[1].power.known is False


def test_fleet_without_sites():
    shown = build_fleet(FakeReads().fleet(PRINCIPAL))
    assert (text_of(shown.verdict.headline), shown.tiles, shown.sites) == ("No sites yet.", (), ())


def test_plan_lists_windows_and_grades_evidence():
    shown = build_plan(read(shedding_site()), None)
    assert shown.stops[0].phase == "running"
    assert str(shown.stops[0].miners) == "70"
    (line,) = shown.checks
    assert (line.stops_by, line.energy_by) == ("50 by feeder meter · 8 by device power", "energy by site meter")
    assert line.level is Level.HIGH
    unmetered = replace(line.check, result="unverified", verified_mwh=None, evidence=None)
    (line,) = build_plan(read(replace(shedding_site(), checks=(unmetered,))), None).checks
    assert (line.stops_by, line.energy_by, line.level) == ("not known", "no metered energy", Level.UNKNOWN)
    assert shown.checks[0].check.liars
    assert "0.061 MW short of target" in text_of(shown.verdict.headline)
    assert shown.chart.windows[-1] == (
        int((NOW - timedelta(minutes=25)).timestamp()),
        int((NOW + timedelta(minutes=35)).timestamp()),
    )


def test_plan_page_shows_the_next_window():
    case = replace(normal_site(), history=timedelta(minutes=4))
    assert build_plan(read(case), None).window == "6h"
    assert text_of(build_plan(read(case), None).verdict.headline).startswith("Next: 62 miners stop at ")


def test_no_plan_and_an_expired_plan_are_said():
    assert text_of(build_plan(read(never_site()), None).verdict.headline) == "No plan yet."
    was = read(normal_site())
    old = Interval(NOW - timedelta(hours=9), NOW - timedelta(hours=1))
    assert build_plan(replace(was, plan=replace(was.plan, valid=old)), None).verdict.level is Level.HIGH


def test_a_silent_miner_shows_no_last_values_as_live():
    case = SiteCase(rows=(silent(0, power_w=Watts(3400)), miner(1)))
    shown = build_miner(FakeReads([case]).miner(PRINCIPAL, "pecos-1", case.rows[0].miner_id, SIX_HOURS), "6h")
    assert not any(tile.figure.known for tile in shown.tiles if tile.label != "Board")
    told = "State not known; last tried at 20:04:47 UTC, not read since 20:04:07 UTC."
    assert text_of(shown.verdict.headline) == told
    assert shown.tried and list_miners(read(case), Show.UNKNOWN, 1).lines[0].tried
    assert "cannot be reached" in text_of(shown.verdict.detail)


def test_a_liar_is_said_on_its_own_page_with_evidence():
    case = shedding_site()
    shown = build_miner(FakeReads([case]).miner(PRINCIPAL, "pecos-2", case.rows[20].miner_id, SIX_HOURS), "6h")
    assert text_of(shown.verdict.headline) == "Should be off, is on."
    assert shown.acks[1].reason == "the feeder's power did not drop"
    assert shown.acks[0].power == "3,380 W after the start"
    assert shown.acks[1].power == "3,400 W → not known"


def test_a_stopped_miner_says_when_it_starts_again():
    case = shedding_site()
    shown = build_miner(FakeReads([case]).miner(PRINCIPAL, "pecos-2", case.rows[1].miner_id, SIX_HOURS), "6h")
    assert text_of(shown.verdict.headline) == "Stopped by plan."
    assert text_of(shown.verdict.detail).startswith("Starts again at ")


def test_list_pages_and_counts_are_exact():
    site = read(huge_site())
    listing = list_miners(site, Show.MISMATCH, 9)
    census = take_census(site.miners)
    assert listing.counts[Show.MISMATCH] == census.mismatch == len(listing.lines)
    assert listing.page == listing.pages == 1
    whole = list_miners(site, Show.ALL, 50)
    assert (whole.pages, len(whole.lines), whole.page) == (50, PAGE_SIZE, 50)


def test_time_before_the_grid_is_planned_too():
    from cloud.api.reads import fill_before

    window = Interval(NOW - timedelta(minutes=5), NOW + timedelta(minutes=5))
    stop = PlannedStop("c", CurtailmentCause.PRICE, window, ("m",), None, Watts(300.0))
    grid = (PlanSlot(Interval(NOW, NOW + timedelta(hours=1)), Watts(700.0)),)
    filled = fill_before(NOW - timedelta(minutes=8), (stop,), grid)
    assert [slot.planned_w for slot in filled] == [1000.0, 700.0, 700.0]
    assert filled[0].interval == Interval(NOW - timedelta(minutes=8), window.start)
    assert filled[-2].interval.end == grid[0].interval.start
    assert fill_before(NOW, (), ()) == ()


def test_a_lost_link_hatches_the_chart_and_dates_what_it_knows():
    case = replace(shedding_site(), link=replace(live_link(), up=False, last_heard=NOW - timedelta(seconds=40)))
    shown = screen(case, "15m")
    assert shown.chart.unheard_from == int((NOW - timedelta(seconds=40)).timestamp())
    assert shown.link.clock == "synced when last heard"
    assert text_of(shown.verdict.detail).endswith(" 2 miners say they stopped and did not.")
    assert shown.chart.bridge_s == shown.chart.axis.step_s + 60
    assert "1 curtailment runs by plan" in text_of(build_fleet(FakeReads([case]).fleet(PRINCIPAL)).tiles[3].against)
    assert screen(late_site(), "15m").chart.unheard_from == int((NOW - timedelta(seconds=61)).timestamp())
    assert screen(normal_site(), "15m").chart.unheard_from is None
    assert (shown.chart.shows_window, screen(normal_site(), "5m").chart.shows_window) == (True, False)
