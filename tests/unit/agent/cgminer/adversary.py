"""Replies as long as the cap allows, made to cost whoever reads them with a pattern that backtracks or adds up.

Run as a program, it reads them all in every dialect. It is killed after 20 s of processor time; reading takes a few,
while one reading of quadratic cost takes more alone.
"""

import json
import resource
from collections.abc import Iterator

from agent.cgminer.dialects import TABLES
from agent.cgminer.repair import decode
from agent.cgminer.replies import interpret
from agent.cgminer.sections import Sections
from agent.errors import Garbled

CAP_BYTES = 262_144
KILLED_AFTER_S = 20
BROKEN = ("{a", '{"', "{a:", "{,", "[{", '{"a"', "{:", "[,", "\\u", "{1 ", "\n", '{"a":"\\', "}")
PLAIN = ("STATUS=S,Code=11", "STATUS=S|SUMMARY,Elapsed=1", "STATUS=S|")
RUNS = ("a", "a[", "temp", "-1", "-a", "1", "Hash Board: ", "L", "vnish ", "x[ ")
KEYS = ("Type", "temp_chip1", "chain_acs1", "chain_power", "MAC", "GHS 5s", "Error Code 0", "miner_id")


def filled(head: str, run: str, size: int = CAP_BYTES) -> bytes:
    """Return ``head`` and as many of ``run`` as fit."""
    return (head + run * ((size - len(head)) // len(run))).encode()


def replies() -> Iterator[bytes]:
    """Yield each adversarial reply."""
    for head in BROKEN:
        yield filled("{", head)
    for head in PLAIN:
        # Adding to a text again and again is quadratic too, but so quick that only more than the cap shows it.
        yield filled(head, ",", 16 * CAP_BYTES)
        yield filled(head, "|A=,")
    for run in RUNS:
        share = run * (CAP_BYTES // 8 // len(run.encode("unicode_escape")))
        for row in (dict.fromkeys(KEYS, share), {f"MM ID{unit}": share for unit in range(8)}, {f"{share * 7}\n": 1}):
            yield json.dumps({"STATUS": [{"STATUS": "S", "Description": run}], "STATS": [row]}).encode()
    for row in ('{"temp":1}', '{"MM ID0":"a[1]"}', '{"STATUS":"S"}', '{"slot":1}'):
        yield b'{"STATS":[' + b",".join([row.encode()] * (CAP_BYTES // (len(row) + 1))) + b"]}"


def main() -> None:
    """Read everything."""
    resource.setrlimit(resource.RLIMIT_CPU, (KILLED_AFTER_S, KILLED_AFTER_S))
    for reply in replies():
        sections = Sections()
        try:
            sections.add(decode(reply))
        except Garbled:
            continue
        for dialect in TABLES:
            interpret(dialect, sections)


if __name__ == "__main__":
    main()
