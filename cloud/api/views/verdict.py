"""The sentence on top of a page. Pure.

Invariant: its level is at least as urgent as the most urgent open alarm, and its figures are the tiles' own.
"""

from collections.abc import Sequence

from cloud.api.source import FleetSite
from cloud.api.views.alerts import Situation
from cloud.api.views.formats import number, plural, power
from cloud.api.views.wording import Alert, Level, Sentence, Verdict, worst
from sitelink.units import Watts


def judge_site(situation: Situation, alerts: tuple[Alert, ...]) -> Verdict:
    """Return what the site does, against which target, until when."""
    census, link = situation.census, situation.read.summary.link
    if census.total == 0:
        return Verdict(Level.LOW, ("No miners yet.",), ("Import an inventory to see them here.",))
    if link.last_heard is None:
        return Verdict(Level.UNKNOWN, ("No agent has reported yet.",), ("Enrol the site's agent with a join token.",))
    urgency = worst(alerts)
    if not situation.link_up:
        return _silent_site(situation, urgency)
    if situation.stop is not None:
        return _shedding(situation, alerts, urgency)
    if situation.released is not None and census.off:
        waiting = f"{number(census.off)} of {plural(len(situation.released.miner_ids), 'miner', 'miners')} still off"
        released: Sentence = (f"Restoring, {waiting}; released at ", situation.released.interval.end, ".")
        return Verdict(urgency, released, _next_change(situation))
    return _running(situation, alerts, urgency)


def _silent_site(situation: Situation, urgency: Level) -> Verdict:
    link, plan = situation.read.summary.link, situation.read.plan
    held = f"The agent holds plan revision {link.plan_revision} and keeps acting on it"
    until: Sentence = (".",)
    if situation.stop is not None:
        until = ("; by that plan the curtailment ends at ", situation.stop.interval.end, ".")
    elif plan is not None and plan.revision == link.plan_revision:
        until = (" until ", plan.valid.end, ".")
    heard: Sentence = ("Site link lost; last heard at ", link.last_heard or situation.now, ".")
    level = urgency if urgency is Level.CRITICAL else Level.UNKNOWN
    return Verdict(level, heard, (held, *until))


def _shedding(situation: Situation, alerts: tuple[Alert, ...], urgency: Level) -> Verdict:
    stop = situation.stop
    assert stop is not None
    census, away = situation.census, situation.off_target_w
    ends: Sentence = ("; ends ", stop.interval.end, ".")
    if away is None:
        state = "Shedding, shortfall not known"
    elif situation.settling:
        state = "Ramping down"
    elif situation.beyond_tolerance and away > 0:
        state = f"Shedding, {power(away)} short of target"
    else:
        state = "Shedding on target"
    ordered = f"{number(census.stopped)} of {plural(census.ordered_off, 'stop', 'stops')} confirmed"
    open_stops = census.ordered_off - census.stopped
    rest = f", {number(open_stops)} not" if open_stops else ""
    return Verdict(urgency, (state, *ends), (f"{ordered}{rest}.", *_worst_named(alerts)))


def _running(situation: Situation, alerts: tuple[Alert, ...], urgency: Level) -> Verdict:
    headline = "Running to plan." if situation.planned_w is not None else "Running; no plan covers this hour."
    if situation.beyond_tolerance and not situation.settling:
        away = situation.off_target_w or Watts(0)
        headline = f"Running, {power(Watts(abs(away)))} {'above' if away > 0 else 'below'} plan."
    elif urgency in {Level.CRITICAL, Level.HIGH}:
        headline = f"Running; {plural(len(alerts), 'alarm is', 'alarms are')} open."
    return Verdict(urgency, (headline,), (*_next_change(situation), *_worst_named(alerts)))


def _worst_named(alerts: tuple[Alert, ...]) -> Sentence:
    """Name the alarm that colours the sentence, where the sentence is about something else."""
    critical = next((alert for alert in alerts if alert.level is Level.CRITICAL), None)
    return () if critical is None else (" ", *critical.title, ".")


def _next_change(situation: Situation) -> Sentence:
    upcoming = situation.upcoming
    if upcoming is None:
        return ("No curtailment is planned.",)
    miners = plural(len(upcoming.miner_ids), "miner stops", "miners stop")
    return (f"Next: {miners} at ", upcoming.interval.start, ", until ", upcoming.interval.end, ".")


def judge_fleet(sites: Sequence[FleetSite], levels: Sequence[Level]) -> Verdict:
    """Return the fleet's sentence; ``levels`` are the sites' own, in the same order."""
    if not sites:
        return Verdict(Level.LOW, ("No sites yet.",), ("Create the first one with the command below.",))
    urgency = min(levels, key=lambda level: level.rank)
    abnormal = [site for site, level in zip(sites, levels, strict=True) if level not in {Level.NORMAL, Level.LOW}]
    if not abnormal:
        return Verdict(urgency, (f"{plural(len(sites), 'site runs', 'sites run')} to plan.",))
    named = ", ".join(site.summary.name for site in abnormal[:3])
    more = f" and {len(abnormal) - 3} more" if len(abnormal) > 3 else ""
    headline = f"{number(len(abnormal))} of {plural(len(sites), 'site needs', 'sites need')} attention."
    return Verdict(urgency, (headline,), (f"{named}{more}.",))
