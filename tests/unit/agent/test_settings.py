"""Settings are read whole or refused with one line that names file, key, cause and remedy."""

from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.house_settings import CapSettings, HeatSettings, PriceSettings, RampSettings, TemperatureSettings
from agent.settings import Endpoint, load_settings, parse_endpoint
from sitelink.types import Fallback, Verb

pytestmark = pytest.mark.agent

MINIMAL = '[site]\nsite_id = "pecos-1"\n'


def load(folder: Path, text: str, environment: dict[str, str] | None = None):
    path = folder / "agent.toml"
    path.write_text(text)
    return load_settings(path, environment or {})


def test_a_site_id_is_enough(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL)
    assert settings.poll.interval_s == 60
    assert (settings.poll.connect_s, settings.poll.first_byte_s, settings.poll.total_s) == (1, 2, 5)
    assert settings.poll.cap_bytes == 256 * 1024
    assert settings.fallback.mode is Fallback.RUN
    assert settings.link.endpoint == Endpoint("127.0.0.1", 7443)


def test_no_factory_password_is_known_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).control.whatsminer_password == ""
    assert load(tmp_path, MINIMAL + '[control]\nwhatsminer_password = ""\n').control.whatsminer_password == ""
    with pytest.raises(BadInput, match=r"\[control\] whatsminer_password: expected a text, got 5"):
        load(tmp_path, MINIMAL + "[control]\nwhatsminer_password = 5\n")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, '[site]\nsite_id = "a"\ninventory = "lists/i.csv"\nstate_dir = "/var/lib/x"\n')
    assert settings.site.inventory == tmp_path / "lists/i.csv"
    assert settings.database == Path("/var/lib/x/agent.db")


def test_everything_written_is_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        MINIMAL
        + '[poll]\ninterval_s = 5\n[link]\nendpoint = "[::1]:9"\n[limits]\nnever_touch = ["02:AA"]\nmax_step_w = 5e5\n'
        + '[fallback]\nmode = "hold"\ngrace_s = 1.5\n',
    )
    assert settings.poll.interval_s == 5
    assert str(settings.link.endpoint) == "[::1]:9"
    assert settings.limits.never_touch == ("02:AA",), "as written: whom it means, the inventory tells"
    assert settings.limits.max_step_w == 500_000
    assert (settings.fallback.mode, settings.fallback.grace_s) == (Fallback.HOLD, 1.5)


def test_a_sites_limits_are_read_in_their_units(tmp_path: Path) -> None:
    limits = load(tmp_path, MINIMAL + '[limits]\nmax_mw_per_min = 1.5\nallowed_verbs = ["start", "stop"]\n').limits
    assert limits.max_per_min_w == 1_500_000
    assert limits.allowed_verbs == {Verb.STOP, Verb.START}
    assert load(tmp_path, MINIMAL).limits.allowed_verbs == set(Verb)
    hot = load(
        tmp_path,
        MINIMAL + "[limits]\nmin_load_mw = 0.5\nmax_chip_temp_c = 95\nmax_rack_temp_c = 70\ncooled_by_c = 5\n"
        "[limits.groups.R7]\nmax_board_temp_c = 60\n",
    ).limits
    assert hot.min_load_w == 500_000
    assert hot.heat == HeatSettings(None, 95.0, 70.0, 5.0, (("R7", 60.0, None),))


def test_how_ramps_are_carried_out_is_read(tmp_path: Path) -> None:
    ramp = load(tmp_path, MINIMAL + '[ramp]\njitter_up = 0.2\nfeedback_up_s = 5\nfirst_models = ["fan wall"]\n').ramp
    assert ramp == RampSettings(0.1, 0.2, 10.0, 5.0, ("fan wall",), 60.0)


FALLBACK = MINIMAL + "[fallback]\ngrace_s = 5\nmode = "


def test_a_sites_own_rule_for_silence_is_read(tmp_path: Path) -> None:
    prices = load(tmp_path, FALLBACK + '"prices"\n[fallback.prices]\nsteps = [[80, 0.5], [150, 1]]\n').fallback
    assert prices.rule == PriceSettings(tmp_path / "prices.csv", "UTC", ((80.0, 0.5), (150.0, 1.0)), Fallback.RUN)
    assert (prices.mode, prices.grace_s) == (Fallback.RUN, 5)
    warm = load(tmp_path, FALLBACK + '"temperature"\n[fallback.temperature]\nsteps = [[70, 0.5]]\n').fallback
    assert warm.rule == TemperatureSettings("", ((70.0, 0.5),), 5.0, Fallback.HOLD)
    cap = load(tmp_path, FALLBACK + '"import_cap"\n[fallback.import_cap]\ncap_mw = 2\n').fallback
    assert cap.rule == CapSettings(2e6, 1e5, 0.0, 30.0, "nameplate")
    spare = load(tmp_path, FALLBACK + '"stop"\n[fallback.import_cap]\ncap_mw = 2\n').fallback
    assert (spare.mode, spare.rule) == (Fallback.STOP, None)


def test_the_password_may_come_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL, {"BALLAST_AGENT_WHATSMINER_PASSWORD": "hush"})
    assert settings.control.whatsminer_password == "hush"
    assert "hush" not in str(settings.redacted())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"agent\.toml: \[site\] site_id: is missing; add it"),
        ("[site\nx = 1", r"agent\.toml: not valid TOML: .*line 1"),
        ("site = 3", r"\[site\]: expected a section, got 3"),
        (MINIMAL + '[limits]\nallowed_verbs = ["stop"]\n', r"allowed_verbs: has stop without start; add start"),
        (MINIMAL + '[limits]\nallowed_verbs = ["halt"]\n', r"allowed_verbs: 'halt' is not a verb; write some of stop,"),
        (MINIMAL + "[limits]\nmax_board_temp_c = 20\n", r"max_board_temp_c: 20 C stops miners that are well; write 30"),
        (MINIMAL + "[limits.groups.R7]\nmax = 60\n", r"\[limits.groups.R7\] max: is not a known key"),
        (MINIMAL + "[limits]\ngroups = 5\n", r"\[limits.groups\]: expected a section, got 5"),
        (MINIMAL + "[limits.groups]\nR7 = 5\n", r"\[limits.groups.R7\]: expected a section, got 5"),
        (FALLBACK + '"prices"\n', r"mode: prices has nothing to go by; write a section \[fallback.prices\]"),
        (FALLBACK + '"never"\n', r"mode: 'never' is not known; write one of run, hold, stop, prices, temperature"),
        (FALLBACK + '"prices"\n[fallback.prices]\n', r"\[fallback.prices\] steps: are none"),
        (FALLBACK + '"prices"\n[fallback.prices]\nsteps = [[80, 2]]\n', r"a share is not above 0 and at most 1"),
        (FALLBACK + '"prices"\n[fallback.prices]\nsteps = [[80, 0.5], [90, 0.2]]\n', r"steps: their shares fall"),
        (FALLBACK + '"prices"\n[fallback.prices]\nsteps = [80]\n', r"steps: expected pairs of numbers, got \[80\]"),
        (FALLBACK + '"prices"\n[fallback.prices]\ntimezone = "Mars/X"\n', r"timezone: 'Mars/X' is not known here"),
        (FALLBACK + '"temperature"\n[fallback.temperature]\nthermometer = "x"\n', r"thermometer: 'x' is no Modbus"),
        (FALLBACK + '"import_cap"\n[fallback.import_cap]\n', r"cap_mw: is missing"),
        (FALLBACK + '"import_cap"\n[fallback.import_cap]\ncap_mw = 1\ndead_meter = "x"\n', r"dead_meter: 'x' is not"),
        (FALLBACK + '"run"\n[fallback.import_cap]\ncap_mw = 1\nmore = 2\n', r"more: is not a known key"),
        (MINIMAL + "[pol]\n", r"unknown section \[pol\]; the sections are site, poll"),
        (MINIMAL + "[poll]\ninterval = 5\n", r"\[poll\] interval: is not a known key"),
        (MINIMAL + '[poll]\ninterval_s = "60"\n', r"\[poll\] interval_s: expected a number, got '60'; write a number"),
        (
            MINIMAL + "[poll]\ninterval_s = 4\n",
            r"\[poll\] interval_s: 4 is out of range; write a number from 5 to 3600",
        ),
        (MINIMAL + "[poll]\ninterval_s = nan\n", r"interval_s: nan is out of range"),
        (MINIMAL + "[poll]\ninterval_s = true\n", r"interval_s: expected a number, got True"),
        (MINIMAL + "[poll]\nconcurrency = 1.5\n", r"concurrency: 1\.5 does not fit; write a whole number"),
        (MINIMAL + "[poll]\nfirst_byte_s = 9\n", r"are not in rising order; write for example 1, 2 and 5"),
        (MINIMAL + '[link]\nendpoint = "cloud"\n', r"\[link\] endpoint: 'cloud' is not HOST:PORT"),
        (MINIMAL + '[link]\nendpoint = "cloud:99999"\n', r"the port must be 1\.\.65535"),
        (MINIMAL + '[limits]\nnever_touch = "02:aa"\n', r"never_touch: expected a list of texts"),
        (MINIMAL + '[fallback]\nmode = "pray"\n', r"mode: 'pray' is not known; write one of run, hold, stop"),
        ('[site]\nsite_id = "Pecos 1"\n', r"site_id: 'Pecos 1' is not a site id; use small letters"),
        ('[site]\nsite_id = "a"\ninventory = ""\n', r"inventory: expected a text, got ''"),
        (
            '[site]\nsite_id = "a"\ninventory = "~no-such-user/x"\n',
            r"inventory: '~no-such-user/x' names a user without a home folder; write the whole path",
        ),
        (
            '[site]\nsite_id = "a"\ninventory = "a\\u0000b"\n',
            r"\[site\] inventory: has characters that cannot be printed",
        ),
        (MINIMAL + f"[poll]\nconcurrency = {'9' * 5000}\n", r"a number of thousands of digits; write a shorter one"),
        (MINIMAL + f"[poll]\nconcurrency = 0x{'f' * 5000}\n", r"concurrency: a number of thousands of digits does"),
        (MINIMAL + f"[poll]\ninterval_s = {'9' * 4000}\n", r"interval_s: 9{60}\.\.\. is out of range"),
        (MINIMAL + f"x = {'[' * 3000}{']' * 3000}\n", r"agent\.toml: its lists or tables nest too deeply"),
    ],
)
def test_bad_settings_are_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as complaint:
        load(tmp_path, text)
    assert len(str(complaint.value).splitlines()) == 1


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_settings(tmp_path / "agent.toml")
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="not UTF-8"):
        load_settings(tmp_path / "agent.toml")
    with pytest.raises(BadInput, match="cannot be read"):
        load_settings(tmp_path)


def test_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(MINIMAL, encoding="utf-8-sig")
    assert load_settings(tmp_path / "agent.toml", {}).site.site_id == "pecos-1"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("10.0.0.5", "10.0.0.5", 4028), ("rig:80", "rig", 80), ("[fe80::1]:5", "fe80::1", 5), ("[::1]", "::1", 4028)],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    assert parse_endpoint(text, 4028) == Endpoint(host, port)


@pytest.mark.parametrize("text", ["", ":80", "a:b", "a:", "a:0", "a b", "fe80::1"])
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(BadInput):
        parse_endpoint(text, 4028)
