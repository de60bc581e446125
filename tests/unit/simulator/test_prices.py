from datetime import date

import pytest

from simulator.errors import BadInput
from simulator.prices import RecordedHours, SyntheticDay, read_hours


def synthetic(after: int = 6, steps: int = 4) -> SyntheticDay:
    return SyntheticDay(seed=7, interval_s=15, spike_after=after, spike_steps=steps, spike_usd_per_mwh=950.0)


def test_a_synthetic_day_is_calm_but_for_its_spike():
    prices = [synthetic().price(step) for step in range(-20, 200)]
    spike = [step - 20 for step, price in enumerate(prices) if price >= 500]
    assert spike == [6, 7, 8, 9]
    assert all(30 <= price <= 60 for step, price in enumerate(prices) if step - 20 not in spike)


def test_a_spike_may_be_left_out():
    assert max(synthetic(steps=0).price(step) for step in range(96)) < 100


def test_day_ahead_saw_no_spike():
    assert synthetic().day_ahead(7) < 100


def file(tmp_path, *rows: str, header: str = "delivery_date,hour_ending,dam_lmp,rtm_lmp"):
    path = tmp_path / "prices.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def day(prices: list[str], on: str = "2024-05-08") -> list[str]:
    return [f"{on},{hour},20,{price}" for hour, price in enumerate(prices, start=1)]


def test_a_file_plays_from_the_hour_before_its_spike(tmp_path):
    prices = ["25"] * 24
    prices[16:19] = ["600", "3000", "900"]
    curve = RecordedHours("p.csv", read_hours(file(tmp_path, *day(prices))), None, 1, 15)
    assert [curve.price(step) for step in range(5)] == [25, 600, 3000, 900, 25]
    assert curve.day_ahead(1) == 20
    assert "2024-05-08" in curve.source
    assert "hour ending 16" in curve.source
    assert "15 s" in curve.source


def test_a_lead_longer_than_the_file_goes_round_it(tmp_path):
    prices = ["25"] * 24
    prices[2] = "600"
    curve = RecordedHours("p.csv", read_hours(file(tmp_path, *day(prices))), None, 99, 15)
    assert [step for step in range(100) if curve.price(step) == 600] == [3, 27, 51, 75, 99]


def test_the_day_can_be_chosen(tmp_path):
    calm, wild = ["25"] * 24, ["25"] * 24
    calm[9], wild[9] = "300", "5000"
    rows = [*day(calm, "2024-05-07"), *day(wild, "2024-05-08")]
    curve = RecordedHours("p.csv", read_hours(file(tmp_path, *rows)), date(2024, 5, 7), 1, 15)
    assert [curve.price(step) for step in range(3)] == [25, 300, 25]


def test_blank_hours_are_left_out_and_blank_real_time_falls_back(tmp_path):
    rows = day(["25"] * 24)
    rows[3] = "2024-05-08,4,,"
    rows[4] = "2024-05-08,5,31.5,"
    rows += day(["700", *["25"] * 23], "2024-05-09")
    curve = RecordedHours("p.csv", read_hours(file(tmp_path, *rows)), None, 22, 15)
    assert [curve.price(step) for step in range(22)][:4] == [25, 25, 31.5, 25]


def test_real_hours_show_the_spike_of_may_2024(markets):
    hours = read_hours(markets / "ercot_hb_west_2024_hourly.csv")
    curve = RecordedHours("ercot_hb_west_2024_hourly.csv", hours, None, 1, 15)
    assert "2024-05-08" in curve.source
    prices = [curve.price(step) for step in range(24)]
    assert prices[0] < 200 <= prices[1]
    assert max(prices) == pytest.approx(3056.64, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["2024-05-08,1,20,abc"], "prices.csv line 2: rtm_lmp: 'abc' is not a price; write USD/MWh"),
        (["2024-05-08,1,20,nan"], "prices.csv line 2: rtm_lmp: 'nan'"),
        (["2024-05-08,1,20,1e9"], "prices.csv line 2: rtm_lmp: '1e9' is out of range; write USD/MWh from -100000 to"),
        (["2024-05-08,1,-100001,25"], "prices.csv line 2: dam_lmp: '-100001' is out of range"),
        (["2024-05-08,25,20,25"], "prices.csv line 2: hour_ending: '25' is not an hour; write 1 to 24"),
        (["08.05.2024,1,20,25"], "prices.csv line 2: delivery_date: '08.05.2024' is not a date"),
        (["2024-05-08,1,20"], "prices.csv line 2: 3 columns where the header has 4"),
        (["2024-05-08,2,20,25", "2024-05-08,1,20,25"], "prices.csv line 3: 2024-05-08 hour 1 comes after a later hour"),
        ([], "prices.csv: 0 hours are too few"),
    ],
)
def test_a_broken_row_is_named_with_file_line_and_cause(tmp_path, rows, said):
    with pytest.raises(BadInput) as raised:
        read_hours(file(tmp_path, *rows))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(BadInput, match="line 1: no column hour_ending"):
        read_hours(file(tmp_path, "1,2", header="delivery_date,price"))
    (tmp_path / "prices.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(BadInput, match="not a CSV text file"):
        read_hours(tmp_path / "prices.csv")
    with pytest.raises(BadInput, match="cannot read"):
        read_hours(tmp_path / "absent.csv")


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_file_is_called_empty(tmp_path, content):
    path = tmp_path / "prices.csv"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"prices\.csv line 1: is empty; give an ERCOT hourly file"):
        read_hours(path)


def test_a_day_outside_the_file_is_refused(tmp_path):
    hours = read_hours(file(tmp_path, *day(["25"] * 24)))
    with pytest.raises(BadInput, match="no hour of 2020-01-01"):
        RecordedHours("p.csv", hours, date(2020, 1, 1), 1, 15)
