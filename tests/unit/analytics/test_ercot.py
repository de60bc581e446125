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
        ("2024-01-01,1,5\n2024-01-01,25,5", "line 3: hour_ending: '25'"),
        ("01/02/2024,1,5", "line 2: delivery_date: '01/02/2024'"),
        ("2024-01-01,2,5\n2024-01-01,1,5", "line 3: .* sort the file"),
        ("2024-01-01,2", "line 2: the row ends before rtm_lmp"),
    ],
)
def test_a_broken_row_is_named_by_line(tmp_path: Path, rows: str, sign: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(f"delivery_date,hour_ending,rtm_lmp\n{rows}\n")
    with pytest.raises(BadInput, match=sign):
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
