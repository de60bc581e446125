"""All the doctor's looks, one after the other, each under a deadline.

Invariant: a look that hangs, as on a mount that went away, costs its own finding and its deadline, nothing else.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Final

from agent.aside import Aside
from agent.doctor import daemon, files, machine
from agent.doctor.doubts import liars
from agent.doctor.finding import Finding, bad
from agent.doctor.journal import journal
from agent.doctor.limits import limits
from agent.doctor.orders import orders, refused
from agent.doctor.outlets import outlets
from agent.errors import AgentError
from agent.local_curtail.anchor import Anchor, stored_anchor
from agent.settings import Settings
from agent.storage import connect_read_only
from sitelink.clock import Clock

_Look = Callable[[], Iterable[Finding]]
_WITHIN_S: Final = 30.0
_REPORT_US: Final = "this look itself failed; report it with the line above"


def examine(settings: Settings, clock: Clock) -> list[Finding]:
    """Return every finding; a look that fails becomes one, too."""
    looks: dict[str, _Look] = {
        "daemon": lambda: daemon.alive(settings),
        "report": lambda: daemon.reported(settings, clock),
        "meters": lambda: (*files.meters(settings), *daemon.metered(settings, clock)),
        "inventory": lambda: files.inventory(settings),
        "outlets": lambda: outlets(settings, clock),
        "orders": lambda: orders(settings, clock),
        "refused": lambda: refused(settings),
        "limits": lambda: limits(settings),
        "liars": lambda: liars(settings),
        "journal": lambda: journal(settings),
        "identity": lambda: files.identity(settings, clock),
        "disk": lambda: machine.disk(settings),
        "permissions": lambda: machine.permissions(settings),
        "database": lambda: files.database(settings),
        "open files": lambda: machine.open_files(settings),
        "wall clock": lambda: machine.wall_clock(_anchor(settings), clock),
    }
    return asyncio.run(_all(looks))


async def _all(looks: dict[str, _Look]) -> list[Finding]:
    aside = Aside(len(looks), "doctor")
    found: list[Finding] = []
    for name, look in looks.items():
        try:
            async with asyncio.timeout(_WITHIN_S):
                found += await aside.run(partial(_whole, look))
        except TimeoutError:
            step = "something that it reads hangs: check the disks and mounts named in agent.toml and meters.csv"
            found.append(bad(name, f"not looked at within {_WITHIN_S:g} s", step))
        except (AgentError, OSError, sqlite3.Error) as error:
            found.append(bad(name, f"cannot be looked at: {error}", "run this as root, or as the daemon's user"))
        except Exception as error:  # noqa: BLE001 - each look's supervisor: one defect hides no other finding
            found.append(bad(name, f"{error!r}", _REPORT_US))
    return found


def _whole(look: _Look) -> list[Finding]:
    return list(look())


def _anchor(settings: Settings) -> Anchor | None:
    try:
        with closing(connect_read_only(settings.database)) as connection:
            return stored_anchor(connection)
    except (AgentError, sqlite3.Error):
        return None
