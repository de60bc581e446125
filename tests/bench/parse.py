"""How much of what real devices said do our tables read: ``python -m tests.bench.parse [--captures DIR]``.

Every transport and every family of MANIFEST.csv counts, and every value that it expects of a case. Left out, and listed
with the rule that leaves it out:

* ``not carried``: none of the case's replies mentions such a figure at all, or the very text.
* ``verdict``: ``has_errors`` is a judgement of the source's own program, not a value in a reply.

Sources differ in which window they call "the hashrate"; a hash rate is met by the window we call current or by the
average since start, both of which an observation carries. Temperatures may be cut to whole degrees in the manifest.
A list is met when each of its values is found, as often as it stands there. Devices that answered one command twice
in one case are taken as two devices; the case's expectation has to be met by one of them as a whole. A firmware is met
when ours names the expected version, a model when ours begins with the expected name. Where a device counts no shares
of a pool, or none that came late, ours are unknown and the source's are 0.

``fields_met`` counts by all of a case's replies; ``fields_met_polling`` by those alone that the dialect's table asks for,
which is what an agent at a site would know.
"""

import csv
import json
import math
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.cgminer.dialects import table_of
from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.replies import parse
from sitelink.types import MinerState, Reason
from tests.bench.capture_names import asked_by, command_of, dialect_of
from tests.bench.report import arguments, finish, say, shared_folder

MENTIONS = {
    "hashrate_ths": rb"[kmgt]hs[ _]?[0-9a]|hs rt|ghsspd|hash[_ -]?rate|hash-realtime|rate_5s",
    "hashrate_mhs_rounded": rb"[kmgt]hs[ _]?[0-9a]|hash[_ -]?rate|rate_5s",
    "expected_ths": rb"ideal|factory|nominal|nameplate|ghsmm|\"ths\"|default hashrate",
    "wattage": rb"watt|power|chain_consumption|\bps\[",
    "power_limit": rb"limit|\bmpo\[|profile|target|\"power\"",
    "uptime": rb"elapsed|uptime",
    "fans": rb"\bfan",
    "fans_rpm": rb"\bfan",
    "fans_rpm_or_pct": rb"\bfan",
    "temps_c": rb"temp",
    "temp_avg": rb"temp",
    "boards": rb"miner_count|chain_acn|\"devs\"|\"temps\"|hash ?board|chain_num|num chips|\"data\"",
    "pools_acc_rej_stale": rb"pool",
    "state": rb"mineroff|hs |hs5s|work-mode",
}
"""Any of these words in any reply of a case, in any case of letters, and a figure counts as carried."""
TEXTS = ("fw", "hostname", "miner_type")
VERDICTS = ("has_errors",)


@dataclass
class Case:
    """One case of the manifest: the replies of one or more devices, and what the source asserts."""

    name: str
    firmware: str
    dialect: str = "auto"
    devices: list[dict[str, bytes]] = field(default_factory=list)
    expected: dict[str, Any] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)

    @property
    def bytes_of_all(self) -> bytes:
        """Return all replies joined, in lower case."""
        return b"\n".join(reply for device in self.devices for reply in device.values()).lower()

    def polled(self) -> list[dict[str, bytes]]:
        """Return each device's replies to the commands that the dialect's table asks, joined ones included."""
        if self.dialect == "auto":
            return self.devices
        asked = set(asked_by(table_of(self.dialect)))
        return [
            {name: reply for name, reply in one.items() if asked & {name, *name.split("+")}} for one in self.devices
        ]


def load(folder: Path) -> list[Case]:
    """Return the cases in ``folder``, over whatever transport they came."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "MANIFEST.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["case"]].append(row)
    return [_case(name, of_case, folder) for name, of_case in rows.items()]


def _case(name: str, rows: list[dict[str, str]], folder: Path) -> Case:
    firmware = rows[0]["firmware"]
    commands, transports = {row["command"] for row in rows}, {row["transport"] for row in rows}
    case = Case(name, firmware, dialect_of(firmware, commands, transports))
    seen: Counter[str] = Counter()
    for row in rows:
        command = command_of(case.dialect, row["transport"], row["command"])
        place = seen[command]
        seen[command] += 1
        while len(case.devices) <= place:
            case.devices.append({})
        case.devices[place][command] = (folder / row["file"]).read_bytes()
        case.expected.update(json.loads(row["expected"] or "{}"))
        if row["valid_json"] == "no":
            case.malformed.append(row["file"])
    return case


def near(found: float | None, expected: float) -> bool:
    """Return whether a rate is within 0.5 %; the manifest rounds to 1e-6 TH/s."""
    return found is not None and math.isclose(found, expected, rel_tol=0.005, abs_tol=1e-6)


def holds(found: Iterable[float], expected: Iterable[float]) -> bool:
    """Return whether each expected value is found as often as it stands there, whole degrees or exact."""
    left = list(found)
    for value in expected:
        match = next((one for one in left if one == value or math.trunc(one) == value or round(one) == value), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _rates(seen: Observation) -> tuple[float | None, float | None]:
    return seen.hashrate_ths, seen.hashrate_average_ths


def _state(seen: Observation, expected: str) -> bool:
    if "sleep" in expected:
        return seen.state is MinerState.IDLE and seen.reason in (Reason.COMMANDED, Reason.NOT_REPORTED)
    if "overheat" in expected:
        return seen.state is MinerState.IDLE and seen.reason is Reason.THERMAL
    return seen.state.value == expected


def _pools(seen: Observation, expected: list[list[int]]) -> bool:
    left = [list(pool) for pool in seen.pools]
    for pool in expected:
        match = next(
            (
                one
                for one in left
                if all(ours == want for ours, want in zip(one, pool, strict=True) if not _uncounted(ours, want))
            ),
            None,
        )
        if match is None:
            return False
        left.remove(match)
    return True


def _uncounted(ours: int | None, expected: int) -> bool:
    return ours is None and expected == 0


CHECKS: Mapping[str, Callable[[Observation, Any], bool]] = {
    "hashrate_ths": lambda seen, want: any(near(rate, want) for rate in _rates(seen)),
    "hashrate_mhs_rounded": lambda seen, want: any(round(rate * 1e6) == want for rate in _rates(seen) if rate),
    "expected_ths": lambda seen, want: near(seen.expected_ths, want),
    "wattage": lambda seen, want: seen.power_w is not None and abs(seen.power_w - want) <= 1,
    "power_limit": lambda seen, want: seen.power_limit_w is not None and abs(seen.power_limit_w - want) <= 1,
    "uptime": lambda seen, want: seen.uptime_s == want,
    "fans": lambda seen, want: len(seen.fans_rpm) == want,
    "fans_rpm": lambda seen, want: holds(seen.fans_rpm, want),
    "fans_rpm_or_pct": lambda seen, want: holds((*seen.fans_rpm, *seen.psu_fans_rpm, *seen.fans_percent), want),
    "temps_c": lambda seen, want: holds(_temps(seen), want),
    "temp_avg": lambda seen, want: holds(_temps(seen), [want]),
    "boards": lambda seen, want: seen.boards == want,
    "pools_acc_rej_stale": _pools,
    "state": _state,
    "fw": lambda seen, want: str(want) in (seen.firmware or ""),
    "hostname": lambda seen, want: seen.hostname == want,
    "miner_type": lambda seen, want: (seen.model or "").lower().startswith(str(want).strip().lower()),
}


def _temps(seen: Observation) -> list[float]:
    return [*seen.board_temps_c, *seen.chip_temps_c, *((seen.env_temp_c,) if seen.env_temp_c is not None else ())]


def left_out(case: Case, name: str, value: Any) -> str | None:
    """Return the rule that leaves an expectation out, or None when it counts."""
    if name in VERDICTS:
        return "verdict of the source's own program"
    if name in TEXTS:
        carried = str(value).strip().lower().encode() in case.bytes_of_all
        return None if carried else "not carried: the text is in no reply of the case"
    pattern = MENTIONS.get(name)
    if pattern is not None and not re.search(pattern, case.bytes_of_all):
        return "not carried: no reply of the case mentions such a figure"
    return None


def counted(case: Case) -> dict[str, Any]:
    """Return the expectations that count; print every other one with its rule."""
    found: dict[str, Any] = {}
    for name, value in case.expected.items():
        rule = left_out(case, name, value)
        if rule is None:
            found[name] = value
        else:
            say(f"  left out  {case.name}: {name} = {value}: {rule}")
    return found


def unmet(case: Case, expected: Mapping[str, Any], observations: list[Observation]) -> list[str]:
    """Return the expectations that no single device meets together with the others; print each with its reason."""
    if not observations:
        return list(expected)
    failed = min(
        ([n for n, v in expected.items() if n not in CHECKS or not CHECKS[n](seen, v)] for seen in observations),
        key=len,
    )
    for name in failed:
        why = "no check for such a value" if name not in CHECKS else f"read {observations[0]}"
        say(f"  UNMET     {case.name}: {name} = {expected[name]}: {why}")
    return failed


def repairs(cases: list[Case], folder: Path) -> tuple[int, int]:
    """Return how many files are no valid JSON and how many of them name their repair."""
    named = 0
    files = [file for case in cases for file in case.malformed]
    for file in files:
        rules = decode((folder / file).read_bytes()).repaired
        named += bool(rules)
        say(f"  repaired  {file}: {', '.join(rules) or 'NO RULE NAMED'}")
    return len(files), named


def measure(cases: list[Case], rounds: int) -> float:
    """Return CPU milliseconds per reply of a full parse."""
    replies = sum(len(device) for case in cases for device in case.devices)
    started = time.process_time()
    for _ in range(rounds):
        for case in cases:
            for device in case.devices:
                parse(case.dialect, device)
    return (time.process_time() - started) * 1e3 / (replies * rounds)


def mutations(cases: list[Case], seed: int, count: int) -> int:
    """Return how many of ``count`` damaged replies make the parser raise."""
    rng = random.Random(seed)
    raised = 0
    for _ in range(count):
        case = rng.choice(cases)
        command, reply = rng.choice(list(rng.choice(case.devices).items()))
        damaged = bytearray(reply)
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(damaged) or 1)
            damaged[place : place + rng.randint(0, 3)] = rng.choice((b"", b'"', b",", b"{", b"}", b"\\", b"\0", b"nan"))
        try:
            parse(case.dialect, {command: bytes(damaged[: rng.randint(0, len(damaged))])})
        except Exception as error:  # noqa: BLE001 - what the bench counts
            raised += 1
            say(f"  RAISED    {case.name}: {command} damaged (seed {seed}): {error!r}")
    return raised


def observe(case: Case, devices: list[dict[str, bytes]]) -> tuple[list[Observation], int]:
    """Return the observations of ``devices``, replies read with and without their NUL, and how often that raised."""
    observations: list[Observation] = []
    raised = 0
    for device in devices:
        for ending in (b"\0", b""):
            try:
                seen = parse(case.dialect, {command: reply + ending for command, reply in device.items()})
            except Exception as error:  # noqa: BLE001 - what the bench counts
                raised += 1
                say(f"  RAISED    {case.name}: {error!r}")
            else:
                observations.append(seen)
    return observations, raised


@dataclass
class Tally:
    """What one family's cases came to."""

    cases: int = 0
    replies: int = 0
    expected: int = 0
    met: int = 0
    met_polling: int = 0
    raised: int = 0

    def take(self, case: Case) -> None:
        """Judge one case."""
        wanted = counted(case)
        observations, failures = observe(case, case.devices)
        polled, polled_failures = observe(case, case.polled())
        self.cases += 1
        self.replies += sum(len(device) for device in case.devices)
        self.expected += len(wanted)
        self.met += len(wanted) - len(unmet(case, wanted, observations))
        self.met_polling += len(wanted) - len(unmet(case, wanted, polled))
        self.raised += failures + polled_failures


def judge(cases: Iterable[Case]) -> dict[str, Tally]:
    """Return the tally of each family; print one line a family."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for case in cases:
        tallies[case.firmware].take(case)
    for family, tally in tallies.items():
        polled = f", {tally.met_polling} by polling alone" if tally.met_polling != tally.met else ""
        say(f"  {family:20} {tally.cases} cases, {tally.replies} replies: {tally.met} of {tally.expected} met{polled}")
    return tallies


def main() -> int:
    """Run the bench."""
    parser = arguments("parse", __doc__ or "")
    parser.add_argument("--captures", type=Path, default=shared_folder() / "captures")
    options = parser.parse_args()
    if not (options.captures / "MANIFEST.csv").is_file():
        say(f"captures absent: no MANIFEST.csv in {options.captures}; give --captures DIR")
        return 1
    cases = load(options.captures)
    tallies = judge(cases).values()
    malformed, named = repairs(cases, options.captures)
    raised = sum(tally.raised for tally in tallies) + mutations(cases, options.seed, 500 if options.quick else 5000)
    figures = {
        "fields_expected": sum(tally.expected for tally in tallies),
        "fields_met": sum(tally.met for tally in tallies),
        "raised": raised,
        "cpu_ms_per_reply": round(measure(cases, 3 if options.quick else 20), 4),
        "fields_met_polling": sum(tally.met_polling for tally in tallies),
        "families": len(tallies),
        "cases": len(cases),
        "replies": sum(tally.replies for tally in tallies),
        "malformed": malformed,
        "malformed_repaired_by_name": named,
    }
    finish("parse", figures, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
