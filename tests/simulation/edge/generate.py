"""Draws a schedule from a seed: orders, attacks and faults, aimed at what is being ordered when it is ordered.

Each family of faults is on with p = 0.6, rare ones with less, so that half of the histories miss some family: an agent
that survives everything at once by accident is seen where little happens. Everything heals at ``heal_s``.
"""

import random
from typing import Any

from tests.simulation.edge.schedule import QUIET, Event, Schedule

HEAL_S = 190.0
END_S = HEAL_S + 105.0
FAMILIES = ("crash", "cut", "network", "device", "hostile", "step", "replan")
RARE = ("restore", "disk", "denied", "override", "small")
SITES = (
    "accept", "accept", "enlist", "mark", "mark", "finish", "finish", "book", "settle", "seal", "follow", "refuse",
    "ctl.reboot", "ctl.reboot", "ctl.limit", "ctl.stop", "ctl.start", "up.batch", "up.hello", "down.receipt",
)  # fmt: skip
DISK_SHARE = 0.0
REAL_SHARE = 0.05


def generate(seed: int) -> Schedule:
    """Return the random history of ``seed``."""
    rng = random.Random(f"{seed} edge")
    on = {name for name in FAMILIES if rng.random() < 0.6} | {name for name in RARE if rng.random() < 0.2}
    if "small" in on:
        on.discard("restore")  # what is settled is kept for a restored cloud as room allows, and there is none
    miners = rng.randint(3, 5)
    names = [f"m{number}" for number in range(miners)]
    events = [*_plans(rng, names, again="replan" in on), *_commands(rng, names)]
    for name in sorted(on):
        draw = _DRAWS.get(name)
        if draw is not None:
            events += draw(rng, names, tuple(events))
    if "override" in on:
        # An override ends by the wall clock in a later boot: which clock is right then is another question.
        events = [event for event in events if event.kind != "step" and not event.what.get("cold")]
    network = _network(rng) if "network" in on else dict(QUIET)
    tier = "disk" if rng.random() < DISK_SHARE else "memory"
    return Schedule(
        seed, miners, tuple(events), HEAL_S, END_S, network, tier, rng.random() < REAL_SHARE,
        1500 if "small" in on else 1024**2,
    )  # fmt: skip


def _network(rng: random.Random) -> dict[str, float]:
    return {
        "lose": rng.choice([0.0, 0.05, 0.2]),
        "double": rng.choice([0.0, 0.1, 0.3]),
        "late": rng.choice([0.0, 0.1, 0.3]),
        "late_s": rng.uniform(1, 15),
        "slow": rng.choice([0.0, 0.0, 0.5]),
    }


def _plans(rng: random.Random, names: list[str], *, again: bool) -> list[Event]:
    start_s = rng.uniform(25, 60)
    end_s = start_s + rng.uniform(30, 90)
    up = rng.choice([(0.0, 0.0), (0.0, 0.0), (4000.0, 5.0)])
    first = {"id": "c1", "start_s": start_s, "end_s": end_s, "miners": rng.sample(names, rng.randint(1, 3)), "up": up}
    plans = [Event("plan", rng.uniform(3, start_s - 5), {"sequence": 2, "windows": [first]})]
    if again:
        changed = {
            "cancel": [],
            "longer": [{**first, "end_s": min(end_s + 25, HEAL_S - 10)}],
            "shorter": [{**first, "end_s": start_s + 10}],
            "others": [{**first, "id": "c2", "miners": rng.sample(names, 2)}],
        }[rng.choice(["cancel", "longer", "shorter", "others"])]
        plans.append(Event("plan", rng.uniform(start_s + 2, end_s - 5), {"sequence": 3, "windows": changed}))
    return plans


def _commands(rng: random.Random, names: list[str]) -> list[Event]:
    drawn: list[tuple[float, str, list[str]]] = []
    for _ in range(rng.randint(1, 4)):
        verb = rng.choice(["reboot", "reboot", "limit", "limit", "blink", "stop"])
        at_s = rng.uniform(5, HEAL_S - 40)
        chosen = rng.sample(names, rng.randint(1, 2))
        drawn.append((at_s, verb, chosen))
        if verb == "limit" and rng.random() < 0.5:  # changed its mind soon after
            drawn.append((at_s + rng.uniform(0.1, 12), verb, chosen))
        if verb == "stop" and rng.random() < 0.4:
            drawn.append((at_s + rng.uniform(5, 30), "start", chosen))
    return [_command(rng, 11 + place, verb, at_s, chosen) for place, (at_s, verb, chosen) in enumerate(sorted(drawn))]


def _command(rng: random.Random, sequence: int, verb: str, at_s: float, miners: list[str]) -> Event:
    expires_s = min(at_s + rng.choice([12.0, 40.0, 90.0, 150.0]), HEAL_S + 15)
    what: dict[str, Any] = {
        "id": f"cmd{sequence}", "sequence": sequence, "verb": verb, "miners": miners, "expires_s": expires_s,
    }  # fmt: skip
    if verb == "limit":
        what["parameters"] = {"power_w": str(round(1200 * 1.09 ** (sequence - 10)))}
    elif verb == "blink":
        what["parameters"] = {"on": rng.choice(["true", "false"])}
    return Event("command", at_s, what)


def _moments(events: tuple[Event, ...]) -> list[float]:
    """Return when something is ordered, begins or ends: faults are aimed there."""
    found = []
    for event in events:
        if event.kind in ("plan", "command"):
            found.append(event.at_s)
        for window in event.what.get("windows", ()):
            found += [window["start_s"], window["end_s"]]
    return found


def _near(rng: random.Random, events: tuple[Event, ...]) -> float:
    if rng.random() < 0.25:
        return rng.uniform(1, HEAL_S - 15)
    return min(HEAL_S - 15, max(0.5, rng.choice(_moments(events)) + rng.uniform(-2, 6)))


def _crashes(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    verbs = {event.what["verb"] for event in events if event.kind == "command"}
    aimed = [site for site in SITES if not site.startswith("ctl.") or site[4:] in verbs | {"stop", "start"}]
    found = []
    for _ in range(rng.randint(1, 3)):
        site = "" if rng.random() < 0.15 else rng.choice(aimed)
        nth = rng.choice([1, 1, 1, 2, 3])
        what = {
            "site": site, "nth": nth, "after": rng.random() < 0.5, "down_s": rng.choice([0.5, 3.0, 20.0]),
            "cold": rng.random() < 0.15,
        }  # fmt: skip
        found.append(Event("crash", _near(rng, events), what))
    return found


def _cuts(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    found = []
    for _ in range(rng.randint(1, 2)):
        at_s = _near(rng, events)
        until_s = min(HEAL_S, at_s + rng.choice([4.0, 25.0, 80.0, 200.0]))
        found.append(Event("cut", at_s, {"until_s": until_s, "way": rng.choice(["both", "up", "down"])}))
    return found


def _devices(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    """Faults of those miners that something is ordered of."""
    ordered = [name for event in events for name in event.what.get("miners", ())]
    ordered += [name for event in events for window in event.what.get("windows", ()) for name in window["miners"]]
    found = []
    for _ in range(rng.randint(1, 3)):
        fault = rng.choice(["dead", "deaf", "lost_request", "lost_reply", "lost_reply", "late", "late", "wakes"])
        what: dict[str, Any] = {"miner": rng.choice(ordered), "fault": fault}
        at_s = _near(rng, events)
        if fault in ("dead", "deaf"):
            what["until_s"] = min(HEAL_S, at_s + rng.choice([5.0, 30.0, 200.0]))
        elif fault in ("lost_request", "lost_reply", "late"):
            what["nth"] = rng.sample(range(1, 5), 2)
        if fault == "late":
            what["late_s"] = rng.uniform(2.5, 8.0)
        found.append(Event("device", at_s, what))
    return found


def _steps(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    return [Event("step", rng.uniform(5, HEAL_S - 15), {"by_s": rng.uniform(-9000, 9000)}) for _ in range(2)]


def _restores(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    return [Event("restore", rng.uniform(20, HEAL_S - 20), {"back_s": rng.uniform(5, 120)})]


def _disks(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    if rng.random() < 0.5:
        return [Event("io_error", _near(rng, events), {"stored": rng.random() < 0.5})]
    at_s = _near(rng, events)
    return [Event("disk_full", at_s, {"until_s": min(HEAL_S - 15, at_s + rng.uniform(3, 40))})]


def _denials(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    """The certificate has expired: the stream ends, and no other begins."""
    at_s = _near(rng, events)
    until_s = min(HEAL_S - 5, at_s + rng.uniform(20, 100))
    return [Event("denied", at_s, {"until_s": until_s}), Event("cut", at_s, {"until_s": at_s + 14.0, "way": "both"})]


def _overrides(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    at_s = rng.uniform(10, HEAL_S - 80)
    what = {"id": "hand1", "verb": "stop", "miners": rng.sample(names, 2), "for_s": rng.uniform(30, 60)}
    crash = {"site": "", "nth": 1, "after": True, "down_s": 3.0, "cold": False}
    return [Event("override", at_s, what), Event("crash", at_s + rng.uniform(0.05, 15), crash)]


def _attacks(rng: random.Random, names: list[str], events: tuple[Event, ...]) -> list[Event]:
    return [Event("hostile", _near(rng, events), _attack(rng, names, number)) for number in range(rng.randint(2, 5))]


def _attack(rng: random.Random, names: list[str], number: int) -> dict[str, Any]:
    how = rng.choice(
        ["forged", "forged", "known_name", "mutated", "other_domain", "other_site", "other_agent", "stale", "old_epoch",
         "replay", "replay", "no_release", "time"]
    )  # fmt: skip
    if how == "replay":
        domain = rng.choice(["ballast/plan/v1", "ballast/command/v1"])
        return {"how": how, "domain": domain, "nth": rng.randint(0, 5)}
    if how == "time":
        kind = rng.choice(["stranger", "other_site", "used"])
        return {
            "how": how, "known": kind != "stranger", "site": "site-2" if kind == "other_site" else "site-1",
            "used": kind == "used", "says_s": rng.choice([-86400.0, 3600.0, 86400.0]),
        }  # fmt: skip
    what: dict[str, Any] = {"how": how, "order": _evil(rng, names, number)}
    if how == "no_release":
        window = {"id": f"evil{number}", "start_s": 5.0, "end_s": HEAL_S + 60, "miners": names}
        what["order"] = {"kind": "plan", "what": {"sequence": 900, "windows": [window], "margin_s": -90.0}}
    elif how == "known_name":
        what |= {"how": "forged", "key_id": "ours"}
    elif how == "other_site":
        what["site"] = "site-2"
    elif how == "other_agent":
        what["agent"] = "clone"
    elif how == "old_epoch":
        what["epoch"] = 0
    elif how == "stale":
        what["order"] = _evil(rng, names, number, command=True)
        what["order"]["what"]["expires_s"] = 0.5
    return what


def _evil(rng: random.Random, names: list[str], number: int, *, command: bool = False) -> dict[str, Any]:
    """Return an order that nobody gave: what it would do to a miner is told from all that was ordered."""
    kind = rng.choice(["limit", "reboot", "stop", "plan"])
    if kind == "plan" and not command:
        window = {"id": f"evil{number}", "start_s": 5.0, "end_s": HEAL_S + 60, "miners": names}
        return {"kind": "plan", "what": {"sequence": 800 + number, "windows": [window], "margin_s": 100.0}}
    verb = "limit" if kind == "plan" else kind
    what: dict[str, Any] = {
        "id": f"evil{number}", "sequence": 700 + number, "verb": verb, "miners": [rng.choice(names)],
        "expires_s": HEAL_S + 60,
    }  # fmt: skip
    if verb == "limit":
        what["parameters"] = {"power_w": str(round(500 * 1.12**number))}
    return {"kind": "command", "what": what}


_DRAWS = {
    "crash": _crashes,
    "cut": _cuts,
    "device": _devices,
    "hostile": _attacks,
    "step": _steps,
    "restore": _restores,
    "disk": _disks,
    "denied": _denials,
    "override": _overrides,
}
