"""What the demo refuses before anything starts, each in one line."""

import socket
import sys
from pathlib import Path

from cloud.cli.demo import checks
from simulator import site

PROGRAM = Path(sys.executable).parent / "ballast-sim"


def test_a_site_has_as_many_miners_as_a_story_needs_and_a_simulator_takes() -> None:
    assert checks.miners(29) == "--miners 29: too few for a story; give 30 or more"
    assert checks.miners(60_001) == "--miners 60001: more than a simulated site takes; give 60000 or fewer"
    assert checks.miners(30) is checks.miners(60_000) is None
    assert checks.MOST_MINERS == site._MOST_MINERS


def test_a_port_is_one_that_is_free() -> None:
    assert checks.http_port(65_536) == "--http-port 65536: is no port; give 1 to 65535"
    assert "-1: is no port" in (checks.http_port(-1) or "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert checks.http_port(port) == (
            f"--http-port {port}: cannot be listened at: Address already in use; give another, or leave it out"
        )
    assert checks.http_port(port) is None


def test_a_price_file_is_read_as_the_market_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    assert checks.prices(path, PROGRAM) == f"--prices {path}: no such file; give a CSV of hourly prices"
    rows = "".join(f"2024-01-01,{hour},20\n" for hour in range(1, 25))
    path.write_text(f"delivery_date,hour_ending,rtm_lmp\n{rows}")
    assert checks.prices(path, PROGRAM) is None
    path.write_text(f"delivery_date,hour_ending,rtm_lmp\n{rows}2024-01-02,1,dear\n")
    assert checks.prices(path, PROGRAM) == (
        "--prices: p.csv line 26: rtm_lmp: 'dear' is not a price; write USD/MWh such as 25.31, or leave it blank"
    )
    assert "run make setup" in (checks.prices(path, tmp_path / "ballast-sim") or "")
