"""Finding miners on the network: discover. It looks and tells; it claims nothing."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.cli.shared import FAILED, Commands, check_port
from agent.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.cgminer.credentials import Credentials
    from agent.discover.look import CredentialsOf, Looker
    from agent.discover.shown import Look
    from agent.discover.standing import Sighting
    from agent.discover.sweep import Manners, Progress
    from agent.inventory.learned import Learned
    from agent.settings import Settings
    from sitelink.inventory import MinerEntry

_DEFAULT_CONFIG: Final = Path("agent.toml")
_BAR: Final = 30
_MOST_AT_ONCE: Final = 256


def add(commands: Commands) -> None:
    """Add the commands."""
    discover = commands.add_parser("discover", help="find the miners in a range of addresses; claims none")
    discover.set_defaults(command=_discover)
    discover.add_argument("targets", nargs="+", metavar="RANGE", help="10.0.0.0/22, 10.0.4.0-10.0.4.99, or a host")
    discover.add_argument("--config", type=Path, help="the agent's settings, whose inventory is compared (agent.toml)")
    discover.add_argument("--json", action="store_true", help="print one JSON object")
    discover.add_argument("--write", type=Path, metavar="FILE", help="write the new and the moved as rows to import")
    discover.add_argument("--port", type=int, help="the API's port (4028)")
    discover.add_argument("--web-port", type=int, help="the web page's port (80)")
    discover.add_argument("--at-once", type=int, default=64, help="hosts looked at at a time (64)")
    discover.add_argument(
        "--log-in", action="store_true", help="show each miner this site's password of its group, where it wants one"
    )


def _discover(options: argparse.Namespace) -> int:
    import asyncio
    import random

    from agent.discover import report, standing, targets
    from agent.discover.sweep import Manners, Sweep
    from agent.inventory.learned import Learned

    _check(options)
    hosts = targets.hosts_of(options.targets)
    settings = _settings(options)
    inventory = _inventory(settings)
    manners = Manners(at_once=options.at_once)
    looker = _looker(options, settings, inventory, manners)
    _say_estimate(len(hosts), looker.ports, manners)
    sweep = Sweep(looker, manners, random.Random(), _bar() if sys.stderr.isatty() else lambda _: None)  # noqa: S311
    looks = asyncio.run(sweep.run(hosts))
    learned = Learned() if settings is None else Learned.load(settings.site.state_dir)
    sightings = standing.judge(looks, inventory, learned)
    absent = standing.missing(sightings, inventory, hosts)
    print(report.as_json(sightings, absent, len(hosts)) if options.json else report.as_table(sightings, absent))
    sys.stdout.flush()  # whatever becomes of files, the sweep is not lost
    if settings is not None:
        _remember(settings, standing.remembered(learned, sightings), learned)
    if options.json:
        _tell_not_asked(looks)
    if options.write is not None:
        _write(options.write, sightings)
    return 0 if all(look.asked for look in looks) else FAILED


def _tell_not_asked(looks: "Iterable[Look]") -> None:
    causes = {look.notes[0].removeprefix(f"{look.host}: ") for look in looks if not look.asked}
    for cause in sorted(causes):
        print(f"ballast-agent: {cause}", file=sys.stderr)


def _check(options: argparse.Namespace) -> None:
    from sitelink.miners import RPC_PORT, WEB_PORT

    options.port = RPC_PORT if options.port is None else options.port
    options.web_port = WEB_PORT if options.web_port is None else options.web_port
    check_port("--port", options.port)
    check_port("--web-port", options.web_port)
    if not 1 <= options.at_once <= _MOST_AT_ONCE:
        raise BadInput(f"--at-once: {options.at_once} is out of range; write 1 to {_MOST_AT_ONCE}")
    if options.write is not None and options.write.exists():
        raise BadInput(f"--write: {options.write}: is there already; give another name, or remove it first")
    if options.write is not None and not options.write.absolute().parent.is_dir():
        raise BadInput(f"--write: {options.write.parent}: there is no such folder; make it, or give another path")
    if options.log_in and options.config is None and not _DEFAULT_CONFIG.exists():
        raise BadInput("--log-in: there are no settings here; give them with --config agent.toml")


def _settings(options: argparse.Namespace) -> "Settings | None":
    """Return the settings named, or those in this folder; None where there are none: then nothing is compared."""
    from agent.settings import load_settings

    if options.config is None and not _DEFAULT_CONFIG.exists():
        return None
    return load_settings(options.config or _DEFAULT_CONFIG)


def _inventory(settings: "Settings | None") -> "tuple[MinerEntry, ...]":
    from agent.inventory import load_as_found

    if settings is None or not settings.site.inventory.exists():
        return ()
    return load_as_found(settings.site.inventory, settings.site.state_dir)


def _looker(
    options: argparse.Namespace, settings: "Settings | None", inventory: "tuple[MinerEntry, ...]", manners: "Manners"
) -> "Looker":
    from agent.cgminer.client import Deadlines
    from agent.discover.look import Looker

    deadlines = Deadlines(connect_s=manners.connect_s)
    if settings is None or not options.log_in:
        return Looker(deadlines, options.port, options.web_port)
    return Looker(deadlines, options.port, options.web_port, _passwords(settings, inventory, options.port))


def _passwords(settings: "Settings", inventory: "tuple[MinerEntry, ...]", port: int) -> "CredentialsOf":
    """Return the site's own answer to who we are: the miner's listed at the host, else its dialect's group.

    Where several stand behind one host, it is the one at ``port``, which is asked: no other's password is shown.

    Raises:
        BadInput: the vault cannot be opened.
    """
    from agent.discover.standing import standing_at
    from agent.vault import Vault

    vault = Vault.open(settings)
    if vault.problem is not None:
        raise BadInput(vault.problem)
    listed: dict[str, list[MinerEntry]] = {}
    for each in inventory:
        listed.setdefault(each.host.lower(), []).append(each)

    def credentials_of(host: str, dialect: str) -> "Credentials | None":
        entry = standing_at(listed.get(host.lower(), ()), port)
        return vault.group(dialect) if entry is None else vault.credentials(entry, dialect)

    return credentials_of


def _say_estimate(hosts: int, ports: "tuple[int, ...]", manners: "Manners") -> None:
    addresses = "1 address" if hosts == 1 else f"{hosts:,} addresses"
    print(
        f"{addresses}, ports {', '.join(map(str, ports))}, {manners.at_once} at a time: "
        f"about {manners.longest_s(hosts):.0f} s where nobody is there, a few seconds for each miner",
        file=sys.stderr,
    )


def _bar() -> "Callable[[Progress], None]":
    """Return what draws a sweep's progress in one line of the terminal."""
    shown = -1

    def draw(progress: "Progress") -> None:
        nonlocal shown
        permille = 1000 * progress.looked_at // max(1, progress.hosts)
        if permille == shown:
            return
        shown = permille
        filled = "#" * (_BAR * permille // 1000)
        line = f"[{filled:.<{_BAR}}] {progress.looked_at:,} of {progress.hosts:,}, {progress.miners:,} miners"
        sys.stderr.write(f"\r{line}" if progress.looked_at < progress.hosts else f"\r{line}\n")
        sys.stderr.flush()

    return draw


def _write(path: Path, sightings: "tuple[Sighting, ...]") -> None:
    from agent.cli.inventory import write_new
    from agent.discover.standing import candidates
    from sitelink.inventory import write_miners

    rows, unwritten = candidates(sightings)
    for line in unwritten:
        print(f"not written: {line}", file=sys.stderr)
    write_new(path, write_miners(rows))
    print(
        f"{len(rows)} rows written to {path}; fill in rack, position and nameplate, then look at what they change: "
        f"ballast-agent inventory import {path} --dry-run",
        file=sys.stderr,
    )


def _remember(settings: "Settings", now: "Learned", before: "Learned") -> None:
    """Keep both names of the miners that are listed, so that a new control board is known as one."""
    if now == before:
        return
    try:
        now.save(settings.site.state_dir)
    except OSError as error:
        print(f"warning: the miners' names were not noted: {error.strerror or error}", file=sys.stderr)
