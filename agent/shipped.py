"""Descriptions of makes and models: TOML files that we ship, and a site's own before them.

Invariant: a file is taken whole or refused with its path, key, cause and what to write.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import BadInput
from agent.files import next_step


def own_or_shipped(
    name: str, folder: Path | None, shipped: Path, what: str, keys: frozenset[str]
) -> tuple[Path, Mapping[str, Any]]:
    """Return path and content of the file called ``name``, the site's own in ``folder`` before ours in ``shipped``.

    ``what`` it describes and where it is named, for who has to correct it: ``meters.csv: the register map``. ``keys``
    are those that it may have.

    Raises:
        BadInput: there is none, it is not TOML, or it has another key.
    """
    own = None if folder is None else folder / f"{name}.toml"
    path = own if own is not None and own.exists() else shipped / f"{name}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        known = ", ".join(sorted(ours.stem for ours in shipped.glob("*.toml")))
        put = "" if own is None else f", or write {own}"
        raise BadInput(f"{what} {name!r} is not known; use one of {known}{put}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; {next_step(error)}") from None
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError among them
        raise BadInput(f"{path}: not a TOML file: {error}; correct that line") from None
    check_keys(str(path), document, keys)
    return path, document


def check_keys(where: str, table: Mapping[str, Any], keys: frozenset[str]) -> None:
    """Raise BadInput when ``table``, which stands at ``where``, has a key that is not one of ``keys``."""
    unknown = set(table) - keys
    if unknown:
        raise BadInput(f"{where}: {min(unknown)}: is not a known key; remove it or correct its spelling")
