"""How much of what real devices said do our tables read: ``python -m tests.bench.parse [--captures DIR]``.

Every value that MANIFEST.csv expects of a case and that the case's RPC replies can carry counts as expected. Left out,
and listed with the rule that leaves it out:

* ``not carried``: none of the case's RPC replies mentions such a figure at all, or the very text, so it came by HTTP.
* ``verdict``: ``has_errors`` is a judgement of the source's own program, not a value in a reply.

Sources differ in which window they call "the hashrate"; a hash rate is met by the window we call current or by the
average since start, both of which an observation carries. Temperatures may be cut to whole degrees in the manifest.
A list is met when each of its values is found, as often as it stands there. Devices that answered one command twice
in one case are taken as two devices; the case's expectation has to be met by one of them as a whole. A firmware is met
when ours names the expected version, a model when ours begins with the expected name.
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

from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.replies import parse
from sitelink.types import MinerState, Reason
from tests.bench.report import arguments, finish, say, shared_folder

TRANSPORT = "rpc4028"
DIALECTS = {
    "antminer-stock": "antminer",
    "whatsminer-btminer": "whatsminer",
    "luxos": "luxos",
    "avalon-cgminer": "avalon",
    "braiins": "braiins",
    "braiins-bosplus": "braiins",
}
MENTIONS = {
    "hashrate_ths": rb"[KMGT]HS |HS RT|GHSspd|GHSavg",
    "hashrate_mhs_rounded": rb"[KMGT]HS ",
    "expected_ths": rb"(?i)ideal|factory ghs|nominal|nameplate|GHSmm",
    "wattage": rb"(?i)watt|power\b|powerconsumption|chain_consumption|chain_power|\bPS\[",
    "power_limit": rb"(?i)limit|\bMPO\[|\"profile",
    "uptime": rb"(?i)elapsed|uptime",
    "fans": rb"(?i)\bfan",
    "fans_rpm": rb"(?i)\bfan",
    "fans_rpm_or_pct": rb"(?i)\bfan",
    "temps_c": rb"(?i)temp",
    "temp_avg": rb"(?i)temp",
    "boards": rb"miner_count|chain_acn|\"DEVS\"|\"TEMPS\"|Hash Board|chain_num|Num chips",
    "pools_acc_rej_stale": rb"\"POOL",
    "state": rb"mineroff|[KMG]HS ",
}
TEXTS = ("fw", "hostname", "miner_type")
VERDICTS = ("has_errors",)


@dataclass
class Case:
    """One case of the manifest: the replies of one or more devices, and what the source asserts."""

    name: str
    firmware: str
    devices: list[dict[str, bytes]] = field(default_factory=list)
    expected: dict[str, Any] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)

    @property
    def dialect(self) -> str:
        """Return the dialect an operator would write into the inventory."""
        return DIALECTS.get(self.firmware, "auto")

    @property
    def bytes_of_all(self) -> bytes:
        """Return all replies joined."""
        return b"\n".join(reply for device in self.devices for reply in device.values())


def load(folder: Path) -> list[Case]:
    """Return the cases in ``folder`` that have at least one RPC reply."""
    cases: dict[str, Case] = {}
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    with (folder / "MANIFEST.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["transport"] != TRANSPORT:
                continue
            case = cases.setdefault(row["case"], Case(row["case"], row["firmware"]))
            place = seen[row["case"]][row["command"]]
            seen[row["case"]][row["command"]] += 1
            while len(case.devices) <= place:
                case.devices.append({})
            case.devices[place][row["command"]] = (folder / row["file"]).read_bytes()
            case.expected.update(json.loads(row["expected"] or "{}"))
            if row["valid_json"] == "no":
                case.malformed.append(row["file"])
    return list(cases.values())


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
        if pool not in left:
            return False
        left.remove(pool)
    return True


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
        return None if str(value).strip().encode() in case.bytes_of_all else "not carried: the text is in no RPC reply"
    pattern = MENTIONS.get(name)
    if pattern is not None and not re.search(pattern, case.bytes_of_all):
        return "not carried: no RPC reply of the case mentions such a figure"
    return None


def judge(case: Case, observations: list[Observation]) -> tuple[int, int]:
    """Return how many values count and how many are met; print every other one with its reason."""
    counted: dict[str, Any] = {}
    for name, value in case.expected.items():
        rule = left_out(case, name, value)
        if rule is None:
            counted[name] = value
        else:
            say(f"  left out  {case.name}: {name} = {value}: {rule}")
    unmet = min(
        ([n for n, v in counted.items() if n not in CHECKS or not CHECKS[n](seen, v)] for seen in observations), key=len
    )
    for name in unmet:
        why = "no check for such a value" if name not in CHECKS else f"read {observations[0]}"
        say(f"  UNMET     {case.name}: {name} = {counted[name]}: {why}")
    return len(counted), len(counted) - len(unmet)


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


def observe(case: Case) -> tuple[list[Observation], int]:
    """Return the case's observations, replies read with and without their NUL, and how often that raised."""
    observations: list[Observation] = []
    raised = 0
    for device in case.devices:
        for ending in (b"\0", b""):
            try:
                seen = parse(case.dialect, {command: reply + ending for command, reply in device.items()})
            except Exception as error:  # noqa: BLE001 - what the bench counts
                raised += 1
                say(f"  RAISED    {case.name}: {error!r}")
            else:
                observations.append(seen)
    return observations, raised


def main() -> int:
    """Run the bench."""
    parser = arguments("parse", __doc__ or "")
    parser.add_argument("--captures", type=Path, default=shared_folder() / "captures")
    options = parser.parse_args()
    if not (options.captures / "MANIFEST.csv").is_file():
        say(f"captures absent: no MANIFEST.csv in {options.captures}; give --captures DIR")
        return 1
    cases = load(options.captures)
    expected = met = raised = 0
    for case in cases:
        observations, failures = observe(case)
        raised += failures
        counted, good = judge(case, observations) if observations else (len(case.expected), 0)
        expected, met = expected + counted, met + good
    malformed, named = repairs(cases, options.captures)
    raised += mutations(cases, options.seed, 500 if options.quick else 5000)
    figures = {
        "fields_expected": expected,
        "fields_met": met,
        "raised": raised,
        "cpu_ms_per_reply": round(measure(cases, 3 if options.quick else 20), 4),
        "cases": len(cases),
        "replies": sum(len(device) for case in cases for device in case.devices),
        "malformed": malformed,
        "malformed_repaired_by_name": named,
    }
    finish("parse", figures, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
