"""The doctor's look at the daemon: does it live, and what it says of link, clock, plan, miners and meters."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib import metadata
from typing import Any, Final

from agent.doctor.finding import Finding, bad, ok, unknown, warn
from agent.errors import AgentError, BadInput, TimedOut, Unreachable
from agent.fleet import meters_of
from agent.inventory import load_meters
from agent.local_socket import Conversation
from agent.lock import holder_of, is_held
from agent.modbus import ModbusHosts
from agent.reasons import next_step
from agent.settings import Settings
from agent.status import SiteStatus, backlog_text, read_status
from sitelink.clock import Clock
from sitelink.types import ClockTrust

_LINK_S: Final = 60.0
_BACKLOG: Final = timedelta(hours=1)
_SILENT_S: Final = 60.0


def alive(settings: Settings) -> Iterator[Finding]:
    """Return whether a daemon runs and answers, and who holds the lock."""
    state_dir = settings.site.state_dir
    holder, held = holder_of(state_dir), is_held(state_dir)
    known = holder is not None and holder.lives()
    whom = str(holder) if known else "an unrecorded process"
    if held:
        yield (
            ok("lock", f"held by {whom}")
            if known
            else warn("lock", f"held by {whom}", "find it with: lslocks | grep agent.lock")
        )
    else:
        yield ok("lock", "free")
    try:
        hello = _ask(settings, {"ask": "hello"})
    except TimedOut as error:
        yield bad("daemon", f"hung: {error}", "systemctl restart ballast-agent, or failsafe ... --take-over")
    except Unreachable as error:
        if held and known and holder is not None and holder.role != "daemon":
            yield warn("daemon", f"not running; {whom} is at work", "it starts once that has ended")
        elif held:
            yield bad("daemon", f"{whom} listens to nobody: {error}", "systemctl restart ballast-agent")
        else:
            yield bad("daemon", "not running", "systemctl start ballast-agent; journalctl -u ballast-agent tells why")
    except AgentError as error:
        yield bad("daemon", str(error), "is it of the same version? systemctl restart ballast-agent")
    else:
        yield from _version(hello)


def reported(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Return what the daemon's own report and its files say."""
    try:
        status = read_status(settings, clock)
    except BadInput as error:
        yield unknown("report", str(error))
        return
    if status.running and status.daemon is None:
        age = "never" if status.daemon_age_s is None else f"{timedelta(seconds=round(status.daemon_age_s))} ago"
        yield bad("report", f"the daemon last reported {age}", "systemctl restart ballast-agent")
    yield _link(status, settings)
    yield _clock(status)
    yield _plan(status)
    yield _backlog(status, settings)
    yield from _miners(status)


def metered(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Return which meters are silent: asked through the daemon, which may hold their only connection."""
    try:
        result = _ask(settings, {"ask": "meters"})
        ages = {str(name): None if age_s is None else float(age_s) for name, age_s in dict(result["meters"]).items()}
    except (AgentError, KeyError, TypeError, ValueError):
        ages = asyncio.run(_read_ourselves(settings, clock))
    silent = sorted(name for name, age_s in ages.items() if age_s is None or age_s > _SILENT_S)
    if silent:
        step = "check its cable, address and unit; until then its feeder's stops rest on the devices' word"
        yield bad("meters", f"{len(silent)} of {len(ages)} silent: {', '.join(silent[:5])}", step)
    elif ages:
        yield ok("meters", f"{len(ages)} answer")


def _ask(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    conversation = Conversation(settings.site.state_dir)
    try:
        for answer in conversation.ask(request):
            if "result" in answer:
                return dict(answer["result"])
        raise BadInput("the daemon does not know this request")
    finally:
        conversation.close()


def _version(hello: Mapping[str, Any]) -> Iterator[Finding]:
    installed = metadata.version("ballast-agent")
    running = str(hello.get("version"))
    if running == installed:
        yield ok("daemon", f"answers: version {running}, process {hello.get('pid')}, {hello.get('miners')} miners")
    else:
        step = "systemctl restart ballast-agent"
        yield warn("daemon", f"version {running} runs, {installed} is installed", step)


def _link(status: SiteStatus, settings: Settings) -> Finding:
    daemon = status.daemon
    if daemon is None or not status.running:
        return unknown("link", "only a running daemon knows")
    age_s = None if daemon.link_age_s is None else daemon.link_age_s + (status.daemon_age_s or 0.0)
    heard = "never in this run" if age_s is None else f"{timedelta(seconds=round(age_s))} ago"
    if daemon.link_up and age_s is not None and age_s <= _LINK_S:
        return ok("link", f"up, heard {heard}")
    step = f"check the way to {settings.link.endpoint}; plans go on, new ones do not arrive"
    cause = f": {daemon.link_trouble}" if daemon.link_trouble else ""
    return bad("link", f"{'up' if daemon.link_up else 'down'}, the cloud was heard {heard}{cause}", step)


def _clock(status: SiteStatus) -> Finding:
    if status.trust is ClockTrust.SYNCED:
        return ok("clock trust", "synced: signed by the cloud within ten minutes")
    if status.trust is ClockTrust.HELD:
        return warn("clock trust", "held: signed time of this boot, carried on", "it holds until a reboot; see link")
    step = "restore the link; until then the site follows [fallback], not its plan"
    return bad("clock trust", "untrusted: no signed time since this boot", step)


def _plan(status: SiteStatus) -> Finding:
    plan = status.plan
    if plan is None:
        return warn("plan", "none held: miners run", "normal for a new site; else see link")
    if status.now >= plan.valid.end:
        what = f"revision {plan.revision} EXPIRED; the site follows its fallback {plan.fallback.value}"
        return bad("plan", what, "see link; ballast-agent plan show")
    return ok("plan", f"revision {plan.revision}, valid until {plan.valid.end:%Y-%m-%d %H:%M} UTC")


def _backlog(status: SiteStatus, settings: Settings) -> Finding:
    text = f"{status.backlog_batches} batches wait for the cloud: {backlog_text(status)}"
    if status.daemon is not None and status.daemon.disk_is_full:
        return bad("backlog", text, f"free disk space where {settings.site.state_dir} lies; orders still work")
    if status.left_out.every_s != 0:
        return warn("backlog", text, "see link; more room: [buffer] max_bytes")
    if status.oldest_at is not None and status.now - status.oldest_at > _BACKLOG:
        return warn("backlog", f"{text}, the oldest from {status.oldest_at:%Y-%m-%d %H:%M} UTC", "see link and disk")
    return ok("backlog", text)


def _miners(status: SiteStatus) -> Iterator[Finding]:
    if status.daemon is None:
        yield unknown("miners", "only a running daemon knows; ballast-agent failsafe status looks without it")
        return
    trouble = 0
    for name, count in sorted(status.daemon.miners.items()):
        reason = name.partition("(")[2].rstrip(")")
        step = next_step(reason)
        if step:
            trouble += count
            yield warn("miners", f"{count} {name}", step)
    if not trouble:
        yield ok("miners", f"{sum(status.daemon.miners.values())} answer")


async def _read_ourselves(settings: Settings, clock: Clock) -> dict[str, float | None]:
    try:
        meters = meters_of(load_meters(settings.site.meters), settings, ModbusHosts(), clock)
    except BadInput:
        return {}
    samples = await asyncio.gather(*(meter.read() for meter in meters))
    await asyncio.gather(*(meter.close() for meter in meters))
    return {sample.meter_id: None if sample.power_w is None else 0.0 for sample in samples}
