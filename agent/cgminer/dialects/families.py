"""By which answer a read-only family shows itself. Pure.

Invariant: a family is told by what only it says. One that grew out of another firmware is asked about first: it answers
as that one does, and is never to be controlled as that one is.
"""

from collections.abc import Callable
from typing import Final

from agent.cgminer.sections import Sections, at, text

_BY_KIND: Final = ("hiveon", "blackminer", "hammer")
"""Words in ``Type`` that are the dialect's own name."""
_OTHERS_BUILD: Final = "rwglr"
"""The build of bmminer that MSKminer and Hiveon ship; the latter names itself in ``Type``."""


def family_of(sections: Sections, kinds: str, said: str) -> str | None:
    """Return the read-only family that answered; None when it is none of them.

    ``kinds`` are the model names in the replies, ``said`` the descriptions in their STATUS, both in lower case.
    """
    named = next((family for family in _BY_KIND if family in kinds), None)
    return named or next((family for family, sign in _SIGNS.items() if sign(sections, said)), None)


def _has(section: str, path: str) -> Callable[[Sections, str], bool]:
    read = at(section, path, lambda value: value is not None)
    return lambda sections, _said: bool(read(sections))


def _says(section: str, path: str, word: str) -> Callable[[Sections, str], bool]:
    read = at(section, path, text)
    return lambda sections, _said: word in (read(sections) or "").lower()


def _is_mskminer(sections: Sections, _said: str) -> bool:
    return any(_OTHERS_BUILD in str(sections.find(section, "BMMiner")) for section in ("version", "stats"))


def _is_auradine(sections: Sections, said: str) -> bool:
    return sections.find("version", "GCMiner") is not None or "gcminer" in said or "fluxos" in said


def _is_elphapex(sections: Sections, _said: str) -> bool:
    return sections.find("info", "dev_sn") is not None


_SIGNS: Final[dict[str, Callable[[Sections, str], bool]]] = {
    "auradine": _is_auradine,
    "mskminer": _is_mskminer,
    "innosilicon": lambda _sections, said: "innominer" in said,
    "elphapex": _is_elphapex,
    "bitaxe": _has("/api/system/info", "ASICModel"),
    "obelisk": _says("/api/info", "vendor", "obelisk"),
    "goldshell": _says("/mcb/status", "model", "goldshell"),
    "epic": _has("/summary", "Power Supply Stats"),
    "antminer-web": _has("/cgi-bin/get_miner_status.cgi", "summary.ghs5s"),
}
