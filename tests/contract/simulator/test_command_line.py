"""``ballast-sim`` as a process: ready line, SIGTERM, one-line refusals with their exit codes."""

import http.client
import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from simulator.cli import main
from tests.contract.simulator.world import free_port

PROGRAM = (sys.executable, "-m", "simulator")


def started(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, object]]:
    process = subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=20)
    assert out == ""
    return process.returncode, errors


def fetched(url: str) -> object:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def test_a_site_comes_up_says_so_and_ends_on_sigterm(tmp_path):
    ports = ("--port", str(free_port()), "--meters", f"127.0.0.1:{free_port()}", "--net", "127.76")
    process, ready = started("site", "--miners", "20", "--out", str(tmp_path), *ports)
    try:
        assert ready["ready"] is True
        truth = fetched(f"{ready['control']}/truth")
        assert len(truth["miners"]) == 20
        assert sum(row["dead"] for row in truth["miners"]) == 1
        assert {row["liar"] for row in truth["miners"]} == {None, "ack_without_effect", "reports_idle"}
        assert {path.name for path in tmp_path.iterdir()} == {"inventory.csv", "meters.csv", "truth.json"}
    finally:
        assert ended(process) == (0, "")


def test_a_market_and_a_link_in_front_of_it():
    process, ready = started("market", "--interval-s", "15", "--spike-after", "3")
    try:
        far = str(ready["control"]).removeprefix("http://")
        proxy, proxy_ready = started("link", "--listen", "127.0.0.1:0", "--to", far)
        try:
            document = fetched(f"http://{proxy_ready['listen']}/prices")
            assert max(row["price_usd_per_mwh"] for row in document["intervals"]) >= 500
        finally:
            assert ended(proxy) == (0, "")
    finally:
        assert ended(process) == (0, "")


def test_a_market_ends_quietly_while_clients_hold_its_connections():
    process, ready = started("market")
    host, _, port = str(ready["control"]).removeprefix("http://").rpartition(":")
    clients = [http.client.HTTPConnection(host, int(port), timeout=10) for _ in range(3)]
    try:
        for client in clients:
            client.request("GET", "/prices")
            assert client.getresponse().read()
    finally:
        assert ended(process) == (0, "")
        for client in clients:
            client.close()


def test_a_market_plays_real_prices(markets):
    process, ready = started("market", "--prices", str(markets / "ercot_hb_west_2024_hourly.csv"), "--interval-s", "15")
    try:
        document = fetched(ready["prices"])
        assert document["market"] == "ercot_hb_west_2024_hourly"
        assert "2024-05-08" in document["source"]
        assert max(row["price_usd_per_mwh"] for row in document["intervals"]) > 3000
    finally:
        assert ended(process) == (0, "")


def test_a_taken_address_ends_the_second_process_with_its_cause():
    process, ready = started("market")
    try:
        address = str(ready["control"]).removeprefix("http://")
        second = subprocess.run([*PROGRAM, "market", "--control", address], capture_output=True, text=True, timeout=20)
        assert second.returncode == 1
        assert second.stderr == (
            f"ballast-sim: cannot listen on {address}: the address is in use; "
            "stop what runs there or give another address\n"
        )
    finally:
        assert ended(process) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["site", "--dialects", "luxos,foo"], "--dialects: unknown dialect 'foo'"),
        (["site", "--control", "here"], "--control: 'here' is not HOST:PORT"),
        (["site", "--time-scale", "0"], "--time-scale: 0.0 is out of range"),
        (["market", "--prices", "absent.csv"], "cannot read absent.csv"),
        (["market", "--start", "noon"], "--start: 'noon' is not a time with its zone"),
        (["market", "--start", "2026-05-08T20:00:00"], "not a time with its zone"),
        (["site", "--miners", "x"], "argument --miners: invalid int value: 'x'; see ballast-sim site --help"),
        (["link"], "the following arguments are required: --listen, --to; see ballast-sim link --help"),
        (["sight"], "invalid choice: 'sight'"),
        (["site", "--site-id", "a/b,c"], "--site-id: 'a/b,c' is not a site id; use small letters"),
        (["site", "--port", "70000"], "--port: 70000 is out of range; give 1 to 65535"),
        (["site", "--port", "-1"], "--port: -1 is out of range"),
        (["site", "--net", "127.0020"], "--net: '127.0020' is not a loopback network"),
        (["site", "--control", "localhost:0"], "--control: 'localhost' is no loopback address; give one such as"),
        (["site", "--control", "10.0.0.1:0"], "--control: '10.0.0.1' is no loopback address"),
        (["site", "--meters", "foo.bar:5020"], "--meters: 'foo.bar' is no loopback address"),
        (["site", "--time-scale", "nan"], "--time-scale: nan is out of range; give 0.001 to 10000"),
        (["site", "--time-scale", "inf"], "--time-scale: inf is out of range"),
        (["site", "--dead", "nan"], "--dead: nan is not a share"),
        (["market", "--interval-s", "99999999999999"], "--interval-s: 99999999999999 is out of range; give 1 to 86400"),
        (["market", "--horizon", "100000000000"], "--horizon: 100000000000 is out of range; give 24 to 10000"),
        (["market", "--start", "9999-12-31T00:00:00+00:00"], "--start: the year: 9999 is out of range; give 2000"),
        (["market", "--start", "0001-01-01T00:00:00+14:00"], "--start: the year: 1 is out of range"),
        (["market", "--spike-price", "90"], "--spike-price: 90.0 is out of range; give 500 to 100000 USD/MWh"),
        (["market", "--spike-price", "nan"], "--spike-price: nan is out of range"),
        (["market", "--spike-after", "99999999"], "--spike-after: 99999999 is out of range; give 0 to 10000"),
        (["market", "--spike-after", "-1"], "--spike-after: -1 is out of range"),
        (["replay", "absent"], "cannot read absent"),
        (["replay", ".", "--port", "0"], "--port: 0 is out of range"),
        (["replay", ".", "--net", "192.168"], "--net: '192.168' is not a loopback network"),
        (
            ["link", "--listen", "127.0.0.1:99999", "--to", "127.0.0.1:1"],
            "--listen: '127.0.0.1:99999' is not HOST:PORT",
        ),
        (["link", "--listen", "[::1]:80", "--to", "127.0.0.1:1"], "--listen: '[::1]' is no loopback address"),
        (["link", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:0"], "--to: nothing answers at port 0"),
        (["link", "--listen", "127.0.0.1:0", "--to", f"a:{'9' * 5000}"], "is not HOST:PORT"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, capsys):
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("ballast-sim: ")
    assert told.err.count("\n") == 1
    assert said in told.err


def test_a_broken_price_file_is_named_with_its_line(tmp_path, capsys):
    path = tmp_path / "prices.csv"
    path.write_text("delivery_date,hour_ending,rtm_lmp\n2024-01-01,1,20\n2024-01-01,2,lots\n")
    assert main(["market", "--prices", str(path)]) == 2
    assert "prices.csv line 3: rtm_lmp: 'lots' is not a price" in capsys.readouterr().err


def test_prices_can_be_checked_without_opening_a_market(tmp_path, capsys):
    path = tmp_path / "prices.csv"
    good = "delivery_date,hour_ending,rtm_lmp\n" + "".join(f"2024-01-01,{h},20\n" for h in range(1, 25))
    path.write_text(good)
    assert main(["market", "--prices", str(path), "--check"]) == 0
    assert json.loads(capsys.readouterr().out)["source"].startswith("prices.csv, 2024-01-01")
    path.write_text(f"{good}2024-01-02,{'9' * 5000},20\n")
    assert main(["market", "--prices", str(path), "--check"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "prices.csv line 26: hour_ending: " in told.err


def test_a_day_of_the_file_must_be_a_date(tmp_path, capsys):
    path = tmp_path / "prices.csv"
    path.write_text("delivery_date,hour_ending,rtm_lmp\n" + "".join(f"2024-01-01,{h},20\n" for h in range(1, 25)))
    assert main(["market", "--prices", str(path), "--day", "yesterday"]) == 2
    assert "--day: 'yesterday' is not a date" in capsys.readouterr().err
