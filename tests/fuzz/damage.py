"""A document with one of its values put in another form: what both fuzzers and the exhaustive test do to replies."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any, Final

from tests.fuzz.samples import ODD_WORDS

Path = tuple[str | int, ...]

ODD_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    float("nan"),
    "",
    "\ud800",
    *ODD_WORDS,
    [],
    [[]],
    [None],
    ["x"],
    {},
    [{}],
    {"0": {}},
)
"""What firmwares put where a number, a text, a list or an object is expected, and what they do not."""
_SHARES: Final = (0.0, 0.03, 0.1, 0.3)


def paths(document: Any, beneath: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in ``document``, the document itself first."""
    yield beneath
    if isinstance(document, dict):
        for key in document:
            yield from paths(document[key], (*beneath, key))
    elif isinstance(document, list):
        for place, value in enumerate(document):
            yield from paths(value, (*beneath, place))


def replaced(document: Any, path: Path, value: Any) -> Any:
    """Return a copy of ``document`` with ``value`` at ``path``."""
    if not path:
        return copy.deepcopy(value)
    found = copy.deepcopy(document)
    holder = found
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = copy.deepcopy(value)
    return found


def mutated(reply: bytes, rng: random.Random) -> bytes | None:
    """Return a JSON reply with one of its values, or a share of all, replaced by odd ones; None when it is no JSON."""
    try:
        document = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    share = rng.choice(_SHARES)
    if not share:
        return json.dumps(replaced(document, rng.choice(list(paths(document))), rng.choice(ODD_VALUES))).encode()
    return json.dumps(_shaken(document, share, rng)).encode()


def _shaken(value: Any, share: float, rng: random.Random) -> Any:
    if rng.random() < share:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    if isinstance(value, dict):
        return {key: _shaken(inner, share, rng) for key, inner in value.items()}
    return [_shaken(inner, share, rng) for inner in value] if isinstance(value, list) else value
