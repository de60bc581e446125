"""The demo's stage: a folder, free ports, configuration files, and the processes that play.

    folder/  cloud.toml  cloud/   pecos-1/{agent.toml, inventory.csv, meters.csv, state/}  captures/..   *.log

Invariant: everything is on loopback and in one temporary folder, so that two demos never meet.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from cloud.cli.demo import captures
from cloud.cli.demo.places import NoPlace, Places
from cloud.cli.demo.processes import Crew
from sitelink.inventory import METER_FIELDS

SITES: Final = ("pecos-1", "pecos-2")
INTERVAL_S: Final = 8
"""The demo's market clears this often, in real seconds."""

BILLING_INTERVAL_S: Final = 10
RATE_USD_PER_KWH: Final = Decimal("0.0725")
CREDIT_USD_PER_MWH: Final = Decimal(40)
_MARKET: Final = "DEMO"
_SPIKE_AFTER: Final = 4
"""Intervals from the market's opening, once the agents run, to the spike: time to poll and see what is normal."""
_SPIKE_INTERVALS: Final = 6
"""Stops on a feeder leave a second apart, so one of slow dialects needs most of this; all is told in 2 minutes."""

_SPIKE_INTERVALS_WITH_KILLS: Final = 10
"""An agent that is killed again and again stops its miners a second apart all the same, only later."""
_DIALECTS: Final = "luxos,whatsminer,avalon,antminer,braiins"
PASSWORDS: Final = {"antminer": ("root", "root"), "braiins": ("root", "root")}
"""Of the simulated miners; the others' orders need none, or stand in agent.toml."""
_SCRIPTS: Final = Path(sys.executable).parent


class NoStage(Exception):
    """The demo cannot be set up here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for. ``miners`` is per site; ``captures`` is a folder of recorded devices."""

    once: bool
    miners: int
    seed: int
    kills: int
    captures: Path | None = None
    prices: Path | None = None
    http_port: int | None = None

    @property
    def spike_intervals(self) -> int:
        """Return how long prices stay high, in market intervals."""
        return _SPIKE_INTERVALS_WITH_KILLS if self.kills else _SPIKE_INTERVALS


@dataclass(frozen=True, slots=True)
class SiteStage:
    """Where one site plays. Addresses are ``host:port``; ``link_control`` is empty where there is no cable to cut.

    ``web_port`` is where its miners' web pages listen.
    """

    site_id: str
    folder: Path
    network: str
    simulator: str
    link_listen: str
    link_control: str
    web_port: int = 0

    @property
    def config(self) -> Path:
        """Return the agent's configuration file."""
        return self.folder / "agent.toml"

    @property
    def inventory(self) -> Path:
        """Return the site's inventory, written by its simulator."""
        return self.folder / "inventory.csv"

    @property
    def meters(self) -> Path:
        """Return the site's meters, written by its simulator."""
        return self.folder / "meters.csv"


@dataclass(frozen=True, slots=True)
class Stage:
    """All addresses and files of one demo. ``sites`` are simulated; ``captures`` replays recorded devices, if any."""

    options: Options
    folder: Path
    places: Places
    http: str
    link: str
    enrol: str
    market: str
    sites: tuple[SiteStage, ...]
    captures: SiteStage | None = None

    @property
    def all_sites(self) -> tuple[SiteStage, ...]:
        """Return every site that has an agent."""
        return self.sites if self.captures is None else (*self.sites, self.captures)

    @property
    def cloud_config(self) -> Path:
        """Return the control plane's configuration file."""
        return self.folder / "cloud.toml"

    @property
    def data_dir(self) -> Path:
        """Return the control plane's data folder."""
        return self.folder / "cloud"


def build(options: Options) -> Stage:
    """Make the folder, choose ports and write the configuration files.

    Raises:
        NoStage: no loopback network is free, or a programme of the demo is not installed.
    """
    for name in ("ballast", "ballast-agent", "ballast-sim"):
        if not (_SCRIPTS / name).exists():
            raise NoStage(f"{name} is not installed beside {sys.executable}; run make setup")
    places = Places(options.seed)
    try:
        networks = places.networks(len(SITES) + 1)
        ports = iter(places.ports(5 + 4 * len(SITES)))
    except NoPlace as error:
        places.close()
        raise NoStage(str(error)) from None
    folder = Path(tempfile.mkdtemp(prefix="ballast-demo-"))
    folder.chmod(0o755)  # the account lent to PostgreSQL must reach its own folder below
    http, link, enrol, market = (f"127.0.0.1:{next(ports)}" for _ in range(4))
    if options.http_port is not None:
        http = f"127.0.0.1:{options.http_port}"
    sites = tuple(
        _site_stage(folder, site_id, network, [next(ports) for _ in range(4)])
        for site_id, network in zip(SITES, networks, strict=False)
    )
    replay = f"127.0.0.1:{next(ports)}"
    recorded = SiteStage(captures.SITE_ID, folder / captures.SITE_ID, networks[-1], replay, link, link_control="")
    stage = Stage(options, folder, places, http, link, enrol, market, sites, recorded if options.captures else None)
    _write_cloud_config(stage)
    for site in stage.all_sites:
        site.folder.mkdir()
        _write_agent_config(stage, site)
    return stage


def _site_stage(folder: Path, site_id: str, network: str, ports: list[int]) -> SiteStage:
    simulator, listen, control = (f"127.0.0.1:{port}" for port in ports[:3])
    return SiteStage(site_id, folder / site_id, network, simulator, listen, control, ports[3])


def clear(stage: Stage) -> None:
    """Remove the demo's folder."""
    stage.places.close()
    shutil.rmtree(stage.folder, ignore_errors=True)


def start_simulators(stage: Stage, crew: Crew) -> None:
    """Start the simulated sites and the cables between them and the cloud, and the replay of recorded devices."""
    for place, site in enumerate(stage.sites):
        crew.spawn_ready(
            f"simulator-{site.site_id}",
            [
                *_program("ballast-sim"), "site", "--site-id", site.site_id, "--miners", str(stage.options.miners),
                "--seed", str(stage.options.seed + place), "--net", site.network, "--control", site.simulator,
                "--out", site.folder, "--dialects", _DIALECTS, "--dead", "0.05", "--liars", "0.02",
                "--feeder-size", "6", "--web-port", str(site.web_port),
            ],
        )  # fmt: skip
        crew.spawn_ready(
            f"cable-{site.site_id}",
            [*_program("ballast-sim"), "link", "--listen", site.link_listen, "--to", stage.link,
             "--control", site.link_control],
        )  # fmt: skip

    if stage.captures is not None:
        _start_replay(stage, stage.captures, crew)


def _start_replay(stage: Stage, site: SiteStage, crew: Crew) -> None:
    crew.spawn_ready(
        f"replay-{site.site_id}",
        [*_program("ballast-sim"), "replay", str(stage.options.captures), "--net", site.network,
         "--control", site.simulator, "--out", site.folder, "--dialect", captures.DIALECT],
    )  # fmt: skip
    site.meters.write_text(",".join(METER_FIELDS) + "\n", encoding="utf-8")


def start_cloud(stage: Stage, crew: Crew) -> None:
    """Start the control plane."""
    crew.spawn("cloud", [*_program("ballast"), "up", "--config", stage.cloud_config])


def password_command(site: SiteStage, group: str, user: str) -> list[str | Path]:
    """Return the command that keeps a group's password, read from its input, in the site's vault."""
    return [*_program("ballast-agent"), "credentials", "set", group, "--user", user, "--config", site.config]


def start_agent(site: SiteStage, crew: Crew) -> None:
    """Start one site's agent."""
    crew.spawn(f"agent-{site.site_id}", [*_program("ballast-agent"), "run", "--config", site.config])


def start_market(stage: Stage, crew: Crew) -> None:
    """Open the market: real prices when given, else a synthetic day with a spike a few intervals ahead."""
    prices: Sequence[str | Path]
    if stage.options.prices is None:
        prices = ["--seed", str(stage.options.seed), "--spike-intervals", str(stage.options.spike_intervals)]
    else:
        prices = ["--prices", stage.options.prices]
    crew.spawn_ready(
        "market",
        [*_program("ballast-sim"), "market", "--market", _MARKET, "--control", stage.market,
         "--interval-s", str(INTERVAL_S), "--spike-after", str(_SPIKE_AFTER), *prices],
    )  # fmt: skip


def enrol_command(site: SiteStage, token: str) -> list[str | Path]:
    """Return the command that enrols a site's agent."""
    return [*_program("ballast-agent"), "enrol", "--config", site.config, "--token", token]


def status_command(site: SiteStage) -> list[str | Path]:
    """Return the command that reads a site's agent from its own files."""
    return [*_program("ballast-agent"), "status", "--config", site.config, "--json"]


def program(name: str) -> Path:
    """Return where one of our own programmes is installed."""
    return _SCRIPTS / name


def _program(name: str) -> list[str | Path]:
    return [program(name)]


def _write_cloud_config(stage: Stage) -> None:
    stage.data_dir.mkdir()
    stage.cloud_config.write_text(
        f"""data_dir = "cloud"
http_listen = "{stage.http}"
link_listen = "{stage.link}"
enrol_listen = "{stage.enrol}"
market = "{_MARKET}"
market_url = "http://{stage.market}/prices"
sweep_interval_s = 2
curtailment_interval_s = 1
market_interval_s = 1
lead_s = 3
min_block_s = {2 * INTERVAL_S}
horizon_s = {24 * INTERVAL_S}
plan_validity_s = 3600
billing_interval_s = {BILLING_INTERVAL_S}
verify_interval_s = 2
verify_grace_s = 60
baseline_s = 15
meter_gap_s = 10
""",
        encoding="utf-8",
    )


def _write_agent_config(stage: Stage, site: SiteStage) -> None:
    site.config.write_text(
        f"""[site]
site_id = "{site.site_id}"
inventory = "inventory.csv"
meters = "meters.csv"
state_dir = "state"

[poll]
interval_s = 5
meter_interval_s = 1

[link]
endpoint = "{site.link_listen}"
enrol_endpoint = "{stage.enrol}"
heartbeat_s = 1

[control]
device_deadline_s = 8
whatsminer_password = "admin"
""",
        encoding="utf-8",
    )
