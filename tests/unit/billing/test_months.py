"""Calendar months in a contract's zone cover the timeline once, whatever the clocks do."""

from datetime import timedelta
from itertools import pairwise

import pytest

from cloud.billing.months import month
from cloud.core.errors import BadInput


def test_months_of_a_year_touch_and_have_their_23_and_25_hour_days() -> None:
    year = [month(f"2026-{number:02d}", "America/Chicago") for number in range(1, 13)]
    assert all(one.end == other.start for one, other in pairwise(year))
    assert year[2].duration == timedelta(days=31, hours=-1)
    assert year[10].duration == timedelta(days=30, hours=1)
    assert month("2028-02", "America/Chicago").duration == timedelta(days=29)
    assert year[11].end == month("2027-01", "America/Chicago").start


@pytest.mark.parametrize(
    "text", ["2026", "2026-13", "March", "2026-00", "", "0001-01", "2200-01", "٢٠٢٦-03", "19799-01"]
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not a month"):
        month(text, "UTC")
