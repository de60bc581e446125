"""Whether an order may be taken into the journal. Pure.

Invariants: a plan is taken whole or not at all; a stop is never taken without its start (``valid`` reaches past the
last release and its ramp); an order for another site or agent, an older one, an expired one, or one for miners that
this site does not know or cannot stop is refused with a stable code, and the plan in force stays.

Out of order, late and twice: the same order again is ``DUPLICATE``, a different one under a used number is refused, an
older plan is refused, an older command of the same signing epoch is taken (commands speak of different miners).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final

from agent.errors import Refused
from agent.local_curtail.rules import SiteMiner, SiteRules
from sitelink.types import ClockTrust, Command, Curtailment, Interval, SitePlan, Verb
from sitelink.verbs import SWITCHING, BadCommand, check_command

_NAMED: Final = 3
_EARLIEST: Final = timedelta(minutes=5)
"""How far a plan's validity may begin ahead: the site's clock and the cloud's are never quite the same."""


class Arrival(StrEnum):
    """What an acceptable order is to the journal."""

    NEW = "new"
    DUPLICATE = "duplicate"


def admit_plan(
    plan: SitePlan,
    payload: bytes,
    held: tuple[int, int, bytes] | None,
    rules: SiteRules,
    miners: Mapping[str, SiteMiner],
    now: datetime,
    trust: ClockTrust,
) -> Arrival:
    """Return whether ``plan`` is new or known; ``held`` is (signing_epoch, sequence, payload) of the plan in force.

    Under an untrusted clock nothing is judged expired: such a plan waits, and the policy does not follow it.

    Raises:
        Refused: with one of the codes wrong_site, wrong_agent, older_than_held, sequence_reused, expired,
            not_yet_valid, verb_not_allowed, ends_before_release, unknown_miners, not_controllable,
            overlapping_windows.
    """
    _check_addressee(plan.site_id, plan.agent_id, rules)
    number = (plan.signing_epoch, plan.sequence)
    if held is not None and number <= held[:2]:
        if payload == held[2]:
            return Arrival.DUPLICATE
        if number == held[:2]:
            raise Refused("sequence_reused", f"plan {number} has been taken with other content")
        raise Refused("older_than_held", f"plan {number} is older than the held {held[:2]}")
    if trust is not ClockTrust.UNTRUSTED and now >= plan.valid.end:
        raise Refused("expired", f"it was valid until {plan.valid.end:%Y-%m-%d %H:%M:%S} UTC; send a new revision")
    if trust is not ClockTrust.UNTRUSTED and plan.valid.start - now > _EARLIEST:
        raise Refused("not_yet_valid", f"it is valid from {plan.valid.start:%Y-%m-%d %H:%M:%S} UTC; send it then")
    if plan.curtailments:
        _check_verb(Verb.STOP, rules)
    for curtailment in plan.curtailments:
        _check_release(plan, curtailment, rules, miners)
    _check_miners((miner for item in plan.curtailments for miner in item.miner_ids), miners)
    _check_windows(plan.curtailments)
    return Arrival.NEW


def admit_command(
    command: Command,
    rules: SiteRules,
    miners: Mapping[str, SiteMiner],
    newest_epoch: int,
    now: datetime,
    trust: ClockTrust,
) -> None:
    """Return when ``command`` (not seen before) may be taken; ``newest_epoch`` is the latest signing epoch seen.

    Whether a firmware knows a verb other than stop and start shows only when it is carried out.

    Raises:
        Refused: with one of the codes wrong_site, wrong_agent, older_epoch, expired, unknown_miners,
            not_controllable, never_touch, clock_untrusted, bad_parameters, two_people_needed, verb_not_allowed.
    """
    _check_addressee(command.site_id, command.agent_id, rules)
    if command.signing_epoch < newest_epoch:
        raise Refused("older_epoch", f"signing epoch {command.signing_epoch} has been closed by {newest_epoch}")
    _check_verb(command.verb, rules)
    try:
        check_command(command)
    except BadCommand as error:
        raise Refused(error.code, str(error)) from None
    if trust is ClockTrust.UNTRUSTED and command.verb not in SWITCHING:
        raise Refused("clock_untrusted", "it cannot be dated yet; send it again once the clock is synced")
    if trust is not ClockTrust.UNTRUSTED and now >= command.expires_at:
        raise Refused("expired", f"it was valid until {command.expires_at:%Y-%m-%d %H:%M:%S} UTC; send it again")
    _check_miners(command.miner_ids, miners, switched=command.verb in SWITCHING)
    untouchable = rules.never_touch.intersection(command.miner_ids)
    if untouchable:
        raise Refused("never_touch", f"this site never touches {_named(untouchable)}")


def _check_addressee(site_id: str, agent_id: str, rules: SiteRules) -> None:
    if site_id != rules.site_id:
        raise Refused("wrong_site", f"it is for site {site_id!r}, this is {rules.site_id!r}")
    if agent_id != rules.agent_id:
        raise Refused("wrong_agent", f"it is for agent {agent_id!r}, this is {rules.agent_id!r}")


def _check_verb(verb: Verb, rules: SiteRules) -> None:
    if verb not in rules.allowed_verbs:
        allowed = ", ".join(sorted(rules.allowed_verbs)) or "no verb"
        raise Refused("verb_not_allowed", f"this site takes no {verb.value}; [limits] allowed_verbs has {allowed}")


def _check_release(plan: SitePlan, item: Curtailment, rules: SiteRules, miners: Mapping[str, SiteMiner]) -> None:
    loads = [miners[miner].load_w for miner in item.miner_ids if miner in miners]
    ramp_s = rules.pace.longest_s(rules.ramps.slowest_up(item.ramp_up), loads)
    if rules.ramps.first_models:
        ramp_s += rules.ramps.first_wait_s
    restored = item.interval.end + timedelta(seconds=ramp_s)
    if plan.valid.end < restored:
        raise Refused(
            "ends_before_release",
            f"curtailment {item.curtailment_id} is restored at {restored:%H:%M:%S} UTC, after the plan's end",
        )


def _check_miners(named: Iterable[str], miners: Mapping[str, SiteMiner], *, switched: bool = True) -> None:
    wanted = set(named)
    unknown = wanted - set(miners)
    if unknown:
        raise Refused("unknown_miners", f"not in this site's inventory: {_named(unknown)}; import it again")
    fixed = {miner for miner in wanted if switched and not miners[miner].controllable}
    if fixed:
        raise Refused("not_controllable", f"their firmware cannot be stopped by us: {_named(fixed)}")


def _check_windows(curtailments: Iterable[Curtailment]) -> None:
    windows: defaultdict[str, list[tuple[Interval, str]]] = defaultdict(list)
    ids: set[str] = set()
    for item in curtailments:
        if item.curtailment_id in ids or not item.curtailment_id:
            raise Refused("overlapping_windows", f"curtailment id {item.curtailment_id!r} stands twice or is empty")
        ids.add(item.curtailment_id)
        if len(set(item.miner_ids)) != len(item.miner_ids):
            raise Refused("overlapping_windows", f"curtailment {item.curtailment_id} names a miner twice")
        for miner in item.miner_ids:
            windows[miner].append((item.interval, item.curtailment_id))
    for miner, spans in windows.items():
        spans.sort(key=lambda span: span[0].start)
        for (first, first_id), (second, second_id) in pairwise(spans):
            if second.start < first.end:
                raise Refused("overlapping_windows", f"{first_id} and {second_id} overlap for miner {miner}")


def _named(miners: Iterable[str]) -> str:
    names = sorted(miners)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
