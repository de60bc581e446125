"""The sentence on top of a page. Pure.

Invariant: its level is at least as urgent as the most urgent open alarm, and its figures are the tiles' own.
"""

from collections.abc import Sequence
from datetime import datetime

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
    if link.lost:
        return silent_site(situation, alerts, urgency)
    if situation.catching_up:
        return late_site(situation, alerts, urgency)
    if situation.stop is not None:
        return _shedding(situation, alerts, urgency)
    if situation.released is not None and census.off:
        waiting = f"{number(census.off)} of {plural(len(situation.released.miner_ids), 'miner', 'miners')} still off"
        released: Sentence = (f"Restoring, {waiting}; released at ", situation.released.interval.end, ".")
        return Verdict(urgency, released, (*_next_change(situation), *_worst_named(alerts)))
    return _running(situation, alerts, urgency)


def silent_site(situation: Situation, alerts: tuple[Alert, ...], urgency: Level) -> Verdict:
    """Return what a site does that is not heard: it goes on by the plan it holds."""
    link, plan = situation.read.summary.link, situation.read.plan
    held = f"The agent holds plan revision {link.plan_revision} and keeps acting on it"
    until: Sentence = (".",)
    if situation.stop is not None:
        until = ("; by that plan the curtailment ends at ", situation.stop.interval.end, ".")
    elif plan is not None and plan.revision == link.plan_revision:
        until = (" until ", plan.valid.end, ".")
    heard: Sentence = ("Site link lost; last heard at ", link.last_heard or situation.now, ".")
    return Verdict(urgency, heard, (held, *until, *_worst_named(alerts)))


def late_site(situation: Situation, alerts: tuple[Alert, ...] = (), urgency: Level = Level.NORMAL) -> Verdict:
    """Return what is known of a site that replays its backlog: nothing of now, but until when it is known."""
    summary = situation.read.summary
    waiting = plural(summary.link.backlog_batches, "batch", "batches")
    since: Sentence = ("no figures yet",) if summary.as_of is None else ("figures are from ", summary.as_of)
    level = min((urgency, Level.UNKNOWN), key=lambda each: each.rank)
    detail = "The link is back; what the site does now shows once the backlog has arrived."
    return Verdict(level, ("Catching up: ", *since, f", {waiting} waiting."), (detail, *_worst_named(alerts)))


def _shedding(situation: Situation, alerts: tuple[Alert, ...], urgency: Level) -> Verdict:
    stop = situation.stop
    assert stop is not None
    census, away = situation.census, situation.off_target_w
    ends: Sentence = ("; ends ", stop.interval.end, ".")
    if away is None:
        state = "Shedding, shortfall not known"
    elif situation.settling:
        state = f"Ramping down, {situation.off_target()} to go" if away > 0 else "Ramping down"
    elif situation.beyond_tolerance and away > 0:
        state = f"Shedding, {situation.off_target()} short of target"
    else:
        state = "Shedding on target"
    ordered = f"{number(census.stopped)} of {plural(census.ordered_off, 'stop', 'stops')} confirmed"
    open_stops = census.ordered_off - census.stopped
    rest = f", {number(open_stops)} not" if open_stops else ""
    return Verdict(urgency, (state, *ends), (f"{ordered}{rest}.", *_worst_named(alerts, situation.target_level)))


def _running(situation: Situation, alerts: tuple[Alert, ...], urgency: Level) -> Verdict:
    if situation.beyond_tolerance and not situation.settling:
        away = situation.off_target_w or Watts(0)
        headline: Sentence = (f"Running, {situation.off_target()} {'above' if away > 0 else 'below'} plan.",)
        return Verdict(urgency, headline, (*_next_change(situation), *_worst_named(alerts, situation.target_level)))
    if alerts:
        more = f" {plural(len(alerts) - 1, 'more alarm is', 'more alarms are')} open." if len(alerts) > 1 else ""
        return Verdict(urgency, ("Running. ", *alerts[0].title, f".{more}"), _next_change(situation))
    headline = ("Running to plan." if situation.covered else "Running; no plan covers this hour.",)
    return Verdict(urgency, headline, _next_change(situation))


def _worst_named(alerts: tuple[Alert, ...], said: Level = Level.NORMAL) -> Sentence:
    """Name the alarm that colours the sentence, unless the sentence has ``said`` that much."""
    urgent = next((alert for alert in alerts if alert.level in {Level.CRITICAL, Level.HIGH}), None)
    return () if urgent is None or urgent.level is said else (" ", *urgent.title, ".")


def _next_change(situation: Situation) -> Sentence:
    upcoming = situation.upcoming
    if upcoming is None:
        return ("No curtailment is planned.",)
    miners = plural(len(upcoming.miner_ids), "miner stops", "miners stop")
    return (f"Next: {miners} at ", upcoming.interval.start, ", until ", upcoming.interval.end, ".")


def judge_fleet(sites: Sequence[tuple[str, Verdict, Situation]]) -> Verdict:
    """Return the fleet's sentence from its sites' names, verdicts and situations, the most urgent first."""
    if not sites:
        return Verdict(Level.LOW, ("No sites yet.",), ("Create the first one with the command below.",))
    urgency = min((verdict.level for _, verdict, _ in sites), key=lambda level: level.rank)
    abnormal = [site for site in sites if site[1].level not in {Level.NORMAL, Level.LOW}]
    noted = abnormal or [site for site in sites if site[1].level is Level.LOW]
    if abnormal:
        headline = f"{number(len(abnormal))} of {plural(len(sites), 'site needs', 'sites need')} attention."
    elif noted:
        headline = f"{number(len(sites) - len(noted))} of {plural(len(sites), 'site runs', 'sites run')} to plan."
    else:
        headline = f"{plural(len(sites), 'site runs', 'sites run')} to plan."
    ramps = _ramps([situation for *_, situation in sites])
    if ramps:
        headline = f"{headline} {ramps}" if abnormal else ramps
        noted = noted or [site for site in sites if site[2].settling]
    named: list[str | datetime] = []
    for name, verdict, _ in noted[:3]:
        named += [f"{name}: ", *verdict.headline, " "]
    more = f"And {number(len(noted) - 3)} more." if len(noted) > 3 else ""
    return Verdict(urgency, (headline,), (*named, more))


def _ramps(situations: Sequence[Situation]) -> str:
    """Return how many sites are on their way to another load, and how far they have to go; empty for none."""
    moving = [each for each in situations if each.settling and each.off_target_w is not None]
    words = []
    for kind, ramping in (("ramping down", True), ("restoring", False)):
        on_it = [each for each in moving if (each.stop is not None) is ramping]
        left = Watts(sum(max(0.0, (each.off_target_w or 0.0) * (1 if ramping else -1)) for each in on_it))
        if on_it:
            words.append(f"{plural(len(on_it), 'site', 'sites')} {kind}; {power(left)} to go.")
    return " ".join(words)
