"""The fuzzer that follows new branches: atheris over libFuzzer, which takes over the process and never gives it back.

``python -m tests.fuzz.coverage_guided SECONDS SEED FOLDER``: the first byte of each input chooses the target. What
raises, hangs or eats memory is left in ``FOLDER/found-*`` by libFuzzer, which then ends with a failure.
"""

import random
import sys
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["agent", "h11"]):
    from tests.fuzz.targets import DIALECTS, TARGETS

from tests.fuzz.damage import mutated
from tests.fuzz.samples import CHALLENGES, FRAMES, HTTP, ODD_WORDS, SAMPLES, keys

_MAX_BYTES: Final = 8192
_SLOW_S: Final = 5
_MEMORY_MB: Final = 1024
NAMES: Final = tuple(TARGETS)
_OF_JSON: Final = frozenset({"parse", "replies"})
_BY_STRUCTURE: Final = 0.75
_ANEW: Final = 0.3
"""How often it sets out from a well-formed reply again: what it came to by then is seldom JSON."""


def one(data: bytes) -> None:
    """Try one input on the target it names."""
    if data:
        TARGETS[NAMES[data[0] % len(NAMES)]](data[1:])


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Return the input changed: most replies in their values, the rest and all else in their bytes."""
    rng = random.Random(seed)
    if rng.random() < _ANEW:
        dialect = rng.choice(sorted(SAMPLES))
        reply = rng.choice(sorted(SAMPLES[dialect].values()))
        data = bytes([NAMES.index("parse"), DIALECTS.index(dialect)]) + reply
    if len(data) > 2 and NAMES[data[0] % len(NAMES)] in _OF_JSON and rng.random() < _BY_STRUCTURE:
        pieces = data[2:].split(b"\0")
        place = rng.randrange(len(pieces))
        piece = mutated(pieces[place], rng)
        if piece is not None:
            pieces[place] = piece
            return (data[:2] + b"\0".join(pieces))[:max_size]
    return atheris.Mutate(data, max_size)


def write_corpus(folder: Path) -> None:
    """Write what the fuzzer sets out from."""
    seeds: list[tuple[str, bytes]] = [("web", b"\x10" + page) for page in HTTP]
    seeds += [("framed", b"\x01" + frame) for frame in FRAMES]
    seeds += [("challenge", challenge) for challenge in CHALLENGES]
    seeds += [("text", b"SUMMARY,Elapsed=1|POOL=0,URL=a|")]
    for dialect, sample in SAMPLES.items():
        place = bytes([DIALECTS.index(dialect)])
        seeds += [("parse", place + reply) for reply in sample.values()]
        seeds += [("replies", place + b"\0".join(sample.values())), ("identify", b"\0".join(list(sample.values())[:2]))]
    for number, (name, payload) in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(bytes([NAMES.index(name)]) + payload[: _MAX_BYTES - 1])


def write_words(path: Path) -> None:
    """Write the dictionary: keys and odd words, escaped as libFuzzer wants it."""
    words = [f'"{key}":' for key in keys()] + list(ODD_WORDS) + ["HTTP/1.1 ", "Content-Length: ", "STATUS=S,"]
    lines = ["".join(f"\\x{byte:02x}" for byte in word.encode()) for word in words]
    path.write_text("\n".join(f'"{line}"' for line in lines), encoding="ascii")


def main(seconds: str, seed: str, folder: Path) -> None:
    """Fuzz; never returns."""
    corpus = folder / "corpus"
    corpus.mkdir()
    write_corpus(corpus)
    write_words(folder / "words")
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": _MAX_BYTES,
        "timeout": _SLOW_S,
        "rss_limit_mb": _MEMORY_MB,
        "artifact_prefix": f"{folder}/found-",
        "dict": folder / "words",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    atheris.Setup(
        ["fuzz", *(f"-{name}={value}" for name, value in options.items()), str(corpus)], one, custom_mutator=mutate
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
