"""ERCOT files: real ones read whole, broken rows named by line, clock changes covered once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud.analytics.ercot import read_ercot
from cloud.core.errors import BadInput

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "column", "rows"),
    [
        ("ercot_hb_west_2024_hourly.csv", "rtm_lmp", 8615),
        ("ercot_lz_west_2024_hourly.csv", "dam_lmp", 8615),
    ],
)
def test_real_hourly_files_are_read(markets: Path, name: str, column: str, rows: int) -> None:
    found = read_ercot(markets / name, "HUB", column, NOW)
    assert rows - 24 <= len(found.prices) <= rows  # a few hours have no price
    starts = [interval.start for interval, _ in found.prices]
    assert starts == sorted(set(starts))
    assert starts[0] == datetime(2024, 1, 1, 6, tzinfo=UTC)  # midnight in Texas


def test_the_real_quarter_hour_file_is_read(markets: Path) -> None:
    found = read_ercot(markets / "ercot_hb_south_15min_2024H2.csv", "HUB", "HB_SOUTH_RTM", NOW)
    assert found.prices[0][0].duration == timedelta(minutes=15)
    assert found.prices[0][0].start == datetime(2024, 6, 1, 5, tzinfo=UTC)
    assert len(found.prices) == 17568


def test_the_hour_that_comes_twice_is_two_hours(tmp_path: Path) -> None:
    path = tmp_path / "autumn.csv"
    path.write_text(
        "interval_start,P\n2024-11-03 00:00:00,1\n2024-11-03 01:00:00,2\n2024-11-03 01:00:00,3\n2024-11-03 02:00:00,4\n"
    )
    starts = [interval.start.hour for interval, _ in read_ercot(path, "HUB", "P", NOW).prices]
    assert starts == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("rows", "sign"),
    [
        ("2024-01-01,1,x", "line 2: rtm_lmp: 'x' is not a number"),
        ("2024-01-01,1,nan", "line 2: rtm_lmp"),
        ("2024-01-01,1,5\n2024-01-01,2,1e9", "line 3: rtm_lmp: '1e9' is out of range; write USD/MWh from -100000 to"),
        ("2024-01-01,1,-100000.01", "line 2: rtm_lmp: '-100000.01' is out of range"),
        ("2024-01-01,1,5\n2024-01-01,25,5", "line 3: hour_ending: '25'"),
        ("01/02/2024,1,5", "line 2: delivery_date: '01/02/2024'"),
        ("2024-01-01,2,5\n2024-01-01,1,5", "line 3: .* sort the file"),
        ("2024-01-01,2", "line 2: the row ends before rtm_lmp"),
        ("2024-01-01,²,5", "line 2: hour_ending: '²' is not an hour"),
        ("9999-12-31,24,5", "line 2: time: .* out of range"),
        ("2024-01-01,1,1,000", "line 2: the row has more fields than the header"),
        ("2024-01-01,1,", "no row has a price in rtm_lmp"),
        ("", "no row has a price in rtm_lmp"),
    ],
)
def test_a_broken_row_is_named_by_line(tmp_path: Path, rows: str, sign: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(f"delivery_date,hour_ending,rtm_lmp\n{rows}\n")
    with pytest.raises(BadInput, match=sign):
        read_ercot(path, "HUB", "rtm_lmp", NOW)


@pytest.mark.parametrize("content", ["", "\n", " ,\n1,2\n"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.csv"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"empty\.csv: line 1: is empty; give an ERCOT price file"):
        read_ercot(path, "HUB", "rtm_lmp", NOW)


def test_a_price_at_the_bound_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "bound.csv"
    path.write_text("delivery_date,hour_ending,rtm_lmp\n2024-01-01,1,-100000\n2024-01-01,2,100000\n")
    assert [price for _, price in read_ercot(path, "HUB", "rtm_lmp", NOW).prices] == [-100_000, 100_000]


def by_interval(tmp_path: Path, *starts: str, encoding: str = "utf-8") -> list[tuple[datetime, int]]:
    """(start, minutes) of each price of a file with these starts."""
    path = tmp_path / "intervals.csv"
    path.write_text("interval_start,P\n" + "".join(f"{start},5\n" for start in starts), encoding=encoding)
    prices = read_ercot(path, "HUB", "P", NOW).prices
    return [(interval.start, interval.duration // timedelta(minutes=1)) for interval, _ in prices]


def test_a_zone_that_is_written_counts(tmp_path: Path) -> None:
    midnight = datetime(2024, 6, 1, tzinfo=UTC)
    for zone in ("+00:00", "Z"):
        found = by_interval(tmp_path, f"2024-06-01T00:00:00{zone}", f"2024-06-01T00:15:00{zone}")
        assert found == [(midnight, 15), (midnight + timedelta(minutes=15), 15)]
    with pytest.raises(BadInput, match=r"line 3: .* some rows have a zone and some have none"):
        by_interval(tmp_path, "2024-06-01T00:00:00Z", "2024-06-01T00:15:00")


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_intervals_are_as_long_as_rows_are_apart(tmp_path: Path, minutes: int) -> None:
    step = timedelta(minutes=minutes)
    starts = [datetime(2024, 6, 1) + step * place for place in (0, 1, 2, 5, 6)]
    found = by_interval(tmp_path, *(str(start) for start in starts))
    assert {length for _, length in found} == {minutes}
    assert [start for start, _ in found] == [(start + timedelta(hours=5)).replace(tzinfo=UTC) for start in starts]


@pytest.mark.parametrize("starts", [("00:00", "01:00", "02:00", "02:15"), ("00:00", "00:07"), ("00:00", "03:00")])
def test_a_file_without_one_interval_is_refused(tmp_path: Path, starts: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="minutes apart; give a file of one interval"):
        by_interval(tmp_path, *(f"2024-06-01 {start}:00" for start in starts))


def test_unknown_prices_do_not_lengthen_their_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "sparse.csv"
    rows = [f"2024-06-01 0{place // 4}:{place % 4 * 15:02}:00,{'' if place % 4 else 5}" for place in range(8)]
    path.write_text("interval_start,P\n" + "\n".join(rows) + "\n")
    prices = read_ercot(path, "HUB", "P", NOW).prices
    assert [interval.duration // timedelta(minutes=1) for interval, _ in prices] == [15, 15]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert len(by_interval(tmp_path, "2024-06-01 00:00:00", encoding="utf-8-sig")) == 1


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("delivery_date,hour_ending,rtm_lmp,rtm_lmp\n2024-01-01,1,5,7\n")
    with pytest.raises(BadInput, match="line 1: column rtm_lmp stands twice"):
        read_ercot(path, "HUB", "rtm_lmp", NOW)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="line 1: has no column interval_start"):
        read_ercot(path, "HUB", "rtm_lmp", NOW)
    path.write_text("interval_start,b\n")
    with pytest.raises(BadInput, match="no column rtm_lmp"):
        read_ercot(path, "HUB", "rtm_lmp", NOW)
    with pytest.raises(BadInput, match="readable CSV"):
        read_ercot(tmp_path / "absent.csv", "HUB", "rtm_lmp", NOW)
