"""Whether a firmware is the version that was asked for, by whole names and never by a part of one. Pure.

    "2026-04-14-0-912d084c-26.04-plus"   is that, 26.04-plus and 26.04; it is neither 2, 2026-04 nor 26.0
    "26.04-rc1"                          is that alone
    "'20210109.22.REL'"                  is 20210109.22.REL: some firmwares write quotes around it

Invariant: an empty version is unknown, and no version at all.

Source: Braiins OS 25.07 and 26.04, ``bos_version.current``: date, number of the day, commit, release, edition.
"""

import re
from typing import Final

from agent.cgminer.control.kept import kept_in

_BUILD: Final = re.compile(r"\d{4}-\d{2}-\d{2}-\d+-[0-9a-f]+-(?P<release>.+?)(?P<edition>-plus)?")


def runs(shown: str, asked: str) -> bool:
    """Return whether a firmware that names itself ``shown`` is the version ``asked``."""
    wanted = _bare(asked)
    return bool(wanted) and wanted in _names(_bare(shown))


def was_another(former: str, asked: str) -> bool:
    """Return whether ``former``, as a driver keeps it, names a version, and another than ``asked``."""
    version = kept_in(former).get("version")
    return isinstance(version, str) and bool(_bare(version)) and not runs(version, asked)


def _names(shown: str) -> frozenset[str]:
    build = _BUILD.fullmatch(shown)
    if build is None:
        return frozenset({shown})
    return frozenset({shown, build["release"], build["release"] + (build["edition"] or "")})


def _bare(version: str) -> str:
    return version.strip().strip("'")
