"""What a site's own rules do at the moment, as its file tells it: for status and doctor. Reads only."""

import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from agent.local_curtail import inbox, records
from agent.local_curtail.held import HEAT_MARK, held_of
from agent.local_curtail.policy import MAX_OFF, MIN_LOAD

VERB_NOT_ALLOWED: Final = "verb_not_allowed"


@dataclass(frozen=True, slots=True)
class Restraint:
    """Who is held for heat, how many stay on against an order by which rule, what was refused, and the fallback."""

    hot_miners: tuple[str, ...] = ()
    hot_racks: tuple[str, ...] = ()
    min_load: int = 0
    max_off: int = 0
    verbs_refused: int = 0
    fallback: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "too_hot": {"miners": list(self.hot_miners), "racks": list(self.hot_racks)},
            "min_load": self.min_load,
            "max_off": self.max_off,
            VERB_NOT_ALLOWED: self.verbs_refused,
            "fallback": self.fallback,
        }

    def lines(self) -> list[str]:
        """Return what there is to tell, one line a rule."""
        found = []
        if self.hot_miners or self.hot_racks:
            racks = f", racks {', '.join(self.hot_racks)}" if self.hot_racks else ""
            found.append(f"too_hot: {len(self.hot_miners)} miners{racks}, stopped until cooled")
        if self.min_load:
            found.append(f"min_load: {self.min_load} miners stay on, so that the site draws its minimum")
        if self.max_off:
            found.append(f"max_off: {self.max_off} miners run again, they were off for as long as this site allows")
        if self.verbs_refused:
            found.append(f"{VERB_NOT_ALLOWED}: {self.verbs_refused} orders refused so far")
        if self.fallback:
            found.append(f"{self.fallback}: the site follows its own rule")
        return found


def stored_restraint(connection: sqlite3.Connection) -> Restraint:
    """Return what the file tells. Raises sqlite3.Error, ValueError, KeyError or TypeError when it is broken."""
    marks = dict(connection.execute("SELECT name, value FROM curtail_marks").fetchall())
    causes = Counter(
        records.miner_of(text).cause for (text,) in connection.execute("SELECT record FROM curtail_miners")
    )
    miners, racks = held_of(marks.get(HEAT_MARK, ""))
    return Restraint(
        hot_miners=tuple(sorted(miners)),
        hot_racks=tuple(sorted(racks)),
        min_load=causes[MIN_LOAD],
        max_off=causes[MAX_OFF],
        verbs_refused=inbox.refusals(connection).get(VERB_NOT_ALLOWED, 0),
        fallback=marks.get("fallback", ""),
    )
