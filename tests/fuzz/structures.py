"""Hypothesis strategies: well-formed replies, damaged in the ways that devices, lines and strangers damage them."""

import json
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz.damage import mutated, paths, replaced
from tests.fuzz.samples import CHALLENGES, FRAMES, HTTP, ODD_WORDS, SAMPLES, keys
from tests.fuzz.targets import COMMANDS, DIALECTS

_DEEP: Final = 60
_PIECES: Final = (
    b"\0",
    b"}{",
    b'"',
    b"\\",
    b",",
    b"nan",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"9" * 60,
    b"[" * 70,
    b"\r\n",
    b"|",
    b"]",
)

scalars: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.just(10**400)
    | st.floats()
    | st.sampled_from(ODD_WORDS)
    | st.text(max_size=12)
)
values: Final[st.SearchStrategy[Any]] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(keys()) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
nested: Final = st.integers(1, _DEEP).map(lambda depth: json.loads("[" * depth + "]" * depth))


@st.composite
def documents(draw: st.DrawFn, document: Any) -> Any:
    """Return ``document`` with a few of its values in another form, nested ones and long ones among them."""
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(document))
        place = places[draw(st.integers(0, len(places) - 1))]
        document = replaced(document, place, draw(values | nested))
    return document


@st.composite
def damaged(draw: st.DrawFn, reply: bytes) -> bytes:
    """Return ``reply`` cut off, with pieces put in or taken out."""
    found = bytearray(reply)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(found)))
        found[place : place + draw(st.integers(0, 8))] = draw(st.sampled_from(_PIECES) | st.binary(max_size=4))
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.booleans()) else found)


@st.composite
def replies(draw: st.DrawFn, reply: bytes) -> bytes:
    """Return ``reply`` damaged in what it says or in how it is written."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(damaged(reply))
    if kind == 1:
        return json.dumps(draw(documents(json.loads(reply)))).encode()
    found = mutated(reply, draw(st.randoms(use_true_random=False)))
    return reply if found is None else found


@st.composite
def polls(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """Return a dialect and the replies to its commands: its own, or those of another one, some of them damaged."""
    dialect = draw(st.sampled_from(DIALECTS))
    sample = SAMPLES[
        dialect if dialect in SAMPLES and draw(st.integers(0, 3)) else draw(st.sampled_from(sorted(SAMPLES)))
    ]
    found = dict(sample)
    for _ in range(draw(st.integers(1, 2))):
        command = draw(st.sampled_from(sorted({*sample, *COMMANDS[dialect]})))
        shape = sample.get(command) or draw(st.sampled_from(sorted(sample.values())))
        found[command] = draw(replies(shape))
    return dialect, found


web_pages: Final = st.tuples(st.binary(min_size=1, max_size=1), st.sampled_from(HTTP).flatmap(damaged)).map(b"".join)
frames: Final = st.tuples(st.binary(min_size=1, max_size=1), st.sampled_from(FRAMES).flatmap(damaged)).map(b"".join)
challenges: Final = st.sampled_from(CHALLENGES).flatmap(damaged)
texts: Final = st.lists(
    st.sampled_from(["SUMMARY", "POOL=0", "Elapsed=1", ",", "|", "=", "STATUS=E", "ASC=0", "\n", "Msg=x"]), max_size=12
).map(lambda words: "".join(words).encode())
