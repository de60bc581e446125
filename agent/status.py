"""How a site's agent stands: what the daemon says of itself, and what its files say when it is dead.

    daemon --every few seconds--> status.json        (replaced whole; says when it was written)
    agent.db, agent.lock, status.json --read only--> `ballast-agent status`

Invariant: a figure that only the daemon can know (link, miners) is shown as unknown once it is too old.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from agent.at_site import Site, held_orders
from agent.buffer import LeftOut, is_unused, left_out, numbering, waiting
from agent.errors import AgentError, TimedOut
from agent.files import replace_file
from agent.local_curtail.overrides import StoredOverride
from agent.local_curtail.policy import whom
from agent.local_curtail.restraint import Restraint, stored_restraint
from agent.local_socket import Conversation
from agent.lock import is_held
from agent.settings import Settings
from sitelink.clock import Clock
from sitelink.types import ClockTrust, SitePlan

_FRESH_HEARTBEATS: Final = 3
_FRESH_S: Final = 15.0
_FOR_ALL: Final = 0o644
"""It holds no secret: whoever may enter the folder may read it."""


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What a running agent writes about itself; ``mono_s`` belongs to ``boot_id``."""

    version: str
    boot_id: str
    mono_s: float
    written_at: datetime
    link_up: bool
    link_age_s: float | None
    miners: Mapping[str, int]
    curtailed: Mapping[str, int]
    link_trouble: str = ""
    """Why the link is not up, as far as that is known."""
    certificate: str = ""
    """How this agent's certificate stands, as one line."""
    disk_is_full: bool = False
    """The disk takes no telemetry: it waits in memory."""


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """Everything ``ballast-agent status`` shows. ``daemon`` is None when it never wrote, or when that is too old."""

    site_id: str
    running: bool
    daemon: DaemonStatus | None
    daemon_age_s: float | None
    now: datetime
    trust: ClockTrust
    plan: SitePlan | None
    overrides: tuple[StoredOverride, ...]
    backlog_batches: int
    backlog_bytes: int
    oldest_at: datetime | None
    max_bytes: int = 0  # what the backlog may take
    left_out: LeftOut = field(default_factory=LeftOut)
    epoch: str | None = None
    next_seq: int = 0
    restraint: Restraint = field(default_factory=Restraint)
    hung: str = ""  # why a daemon that holds the lock is taken for hung; empty when it answers, or is not there


def write_status(path: Path, status: DaemonStatus) -> None:
    """Replace the file at ``path``.

    Raises:
        OSError: the disk takes nothing.
    """
    # asdict rebuilds mappings by their type, which only plain dicts survive.
    plain = replace(status, miners=dict(status.miners), curtailed=dict(status.curtailed))
    text = json.dumps(asdict(plain), default=datetime.isoformat)
    replace_file(path, text.encode(), _FOR_ALL, durable=False)


def read_status(settings: Settings, clock: Clock) -> SiteStatus:
    """Return how the agent of these settings stands, whether it runs or not. Changes nothing.

    Raises:
        BadInput: it has never run, or its database cannot be read.
    """
    with Site(settings, clock).file() as connection:
        held = held_orders(connection, clock)
        batches, size, oldest_at = (0, 0, None) if is_unused(connection) else waiting(connection)
        gone = LeftOut() if is_unused(connection) else left_out(connection)
        epoch, next_seq = (None, 0) if is_unused(connection) else numbering(connection)
        daemon, age_s = _daemon(settings, clock)
        running = is_held(settings.site.state_dir)
        return SiteStatus(
            site_id=settings.site.site_id,
            running=running,
            hung=_hung(settings.site.state_dir) if running else "",
            daemon=daemon,
            daemon_age_s=age_s,
            now=held.now,
            trust=held.trust,
            plan=held.plan,
            overrides=held.overrides,
            backlog_batches=batches,
            backlog_bytes=size,
            oldest_at=oldest_at,
            max_bytes=settings.buffer.max_bytes,
            left_out=gone,
            epoch=epoch,
            next_seq=next_seq,
            restraint=stored_restraint(connection),
        )


def as_json(status: SiteStatus) -> str:
    """Return the status as one JSON object; unknown figures are null."""
    daemon, plan, upcoming = status.daemon, status.plan, next_curtailment(status)
    document = {
        "site_id": status.site_id,
        "running": status.running,
        "hung": bool(status.hung),
        "status_age_s": status.daemon_age_s,
        "version": None if daemon is None else daemon.version,
        "link": {
            "up": None if daemon is None else daemon.link_up and status.running,
            "age_s": _link_age_s(status),
        },
        "certificate": None if daemon is None else daemon.certificate or None,
        "clock": {"now": status.now, "trust": status.trust.value},
        "plan": None
        if plan is None
        else {
            "plan_id": plan.plan_id,
            "revision": plan.revision,
            "issued_at": plan.issued_at,
            "valid_until": plan.valid.end,
            "expired": status.now >= plan.valid.end,
            "fallback": plan.fallback.value,
            "curtailments": len(plan.curtailments),
        },
        "next_curtailment": upcoming,
        "overrides": [
            {
                "verb": item.override.verb.value,
                "miners": None if item.override.miner_ids is None else sorted(item.override.miner_ids),
                "until": item.until,
            }
            for item in status.overrides
        ],
        "backlog": {
            "batches": status.backlog_batches,
            "bytes": status.backlog_bytes,
            "max_bytes": status.max_bytes,
            "oldest_at": status.oldest_at,
            "kept_every_s": status.left_out.every_s,
            "thinned_items": status.left_out.thinned_items,
            "given_up_items": status.left_out.given_up_items,
            "broken_items": status.left_out.broken_items,
            "disk_is_full": None if status.daemon is None else status.daemon.disk_is_full,
        },
        "limits": status.restraint.document(),
        "numbering": {"epoch": status.epoch, "next_seq": status.next_seq},
        "miners": None if daemon is None else dict(daemon.miners),
        "curtailed": None if daemon is None else dict(daemon.curtailed),
    }
    return json.dumps(document, default=datetime.isoformat, indent=1)


def as_table(status: SiteStatus) -> str:
    """Return the status as lines for a terminal."""
    rows = [
        ("site", status.site_id),
        ("agent", _agent_text(status)),
        ("link", _link_text(status)),
        ("certificate", "unknown" if status.daemon is None else status.daemon.certificate or "unknown"),
        ("clock", f"{_time_text(status.now)} ({status.trust.value})"),
        ("plan", _plan_text(status)),
        ("next curtailment", _next_text(status)),
        ("backlog", f"{status.backlog_batches} batches, {backlog_text(status)}{_since_text(status)}"),
        ("miners", "unknown" if status.daemon is None else _counts_text(status.daemon.miners)),
        ("curtailed", "unknown" if status.daemon is None else _counts_text(status.daemon.curtailed)),
    ]
    for item in status.overrides:
        words = f"{item.override.verb.value} {whom(item.override.miner_ids)} until {_time_text(item.until)}"
        rows.append(("override", words))
    rows += [("limit", line) for line in status.restraint.lines()]
    return "\n".join(f"{name:<17} {value}" for name, value in rows)


def next_curtailment(status: SiteStatus) -> dict[str, Any] | None:
    """Return the running or the next curtailment of the plan held, None when there is none."""
    if status.plan is None:
        return None
    ahead = [item for item in status.plan.curtailments if item.interval.end > status.now]
    if not ahead:
        return None
    item = min(ahead, key=lambda each: each.interval.start)
    return {
        "curtailment_id": item.curtailment_id,
        "cause": item.cause.value,
        "start": item.interval.start,
        "end": item.interval.end,
        "miners": len(item.miner_ids),
        "running": item.interval.contains(status.now),
    }


def _hung(state_dir: Path) -> str:
    """Return why the daemon that holds the lock is taken for hung, empty when it is not."""
    try:
        conversation = Conversation(state_dir)
        try:
            list(conversation.ask({"ask": "hello"}))
        finally:
            conversation.close()
    except TimedOut as error:
        return str(error)
    except AgentError:
        return ""  # it starts, ends or is busy: it is no hung one
    return ""


def _daemon(settings: Settings, clock: Clock) -> tuple[DaemonStatus | None, float | None]:
    try:
        fields: dict[str, Any] = json.loads((settings.site.state_dir / "status.json").read_bytes())
        status = DaemonStatus(**{**fields, "written_at": datetime.fromisoformat(fields["written_at"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    if status.boot_id != clock.boot_id():
        return None, None
    age_s = clock.monotonic() - status.mono_s
    fresh = age_s <= max(_FRESH_S, _FRESH_HEARTBEATS * settings.link.heartbeat_s)
    return (status if fresh else None), age_s


def _link_age_s(status: SiteStatus) -> float | None:
    if status.daemon is None or status.daemon.link_age_s is None:
        return None
    return round(status.daemon.link_age_s + (status.daemon_age_s or 0.0), 1)


def _agent_text(status: SiteStatus) -> str:
    if status.hung:
        last = _age_text(status.daemon_age_s)
        return f"HUNG: {status.hung}, last report {last} ago; systemctl restart ballast-agent, or failsafe --take-over"
    if status.running:
        said = "running" if status.daemon is None else f"running, version {status.daemon.version}"
        return said if status.daemon is not None else f"{said}, but silent for {_age_text(status.daemon_age_s)}"
    return f"not running (last heard {_age_text(status.daemon_age_s)} ago); start it with ballast-agent run"


def _link_text(status: SiteStatus) -> str:
    if status.daemon is None:
        return "unknown"
    age_s = _link_age_s(status)
    heard = "never heard in this run" if age_s is None else f"heard {_age_text(age_s)} ago"
    return f"{'up' if status.daemon.link_up and status.running else 'down'}, {heard}"


def _plan_text(status: SiteStatus) -> str:
    plan = status.plan
    if plan is None:
        return "none held"
    ending = "EXPIRED" if status.now >= plan.valid.end else "valid until"
    return f"revision {plan.revision}, {len(plan.curtailments)} curtailments, {ending} {_time_text(plan.valid.end)}"


def _next_text(status: SiteStatus) -> str:
    item = next_curtailment(status)
    if item is None:
        return "none planned"
    when = "running" if item["running"] else f"in {_age_text((item['start'] - status.now).total_seconds())}"
    return (
        f"{when}: {item['miners']} miners, {_time_text(item['start'])} to {_time_text(item['end'])} ({item['cause']})"
    )


def _since_text(status: SiteStatus) -> str:
    return "" if status.oldest_at is None else f", oldest from {_time_text(status.oldest_at)}"


def backlog_text(status: SiteStatus) -> str:
    """Return how full the buffer is and what was left out for it, in words."""
    share = f" ({status.backlog_bytes / status.max_bytes:.0%} of the room)" if status.max_bytes else ""
    words = [f"{status.backlog_bytes:,} bytes{share}"]
    gone = status.left_out
    if gone.every_s != 0:
        words.append("the oldest is given up" if gone.every_s is None else f"thinned to one in {gone.every_s} s")
    counts = (("thinned out", gone.thinned_items), ("given up", gone.given_up_items), ("broken", gone.broken_items))
    words += [f"{count:,} items {name} so far" for name, count in counts if count]
    if status.daemon is not None and status.daemon.disk_is_full:
        words.append("THE DISK IS FULL: telemetry waits in memory")
    return ", ".join(words)


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"


def _age_text(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else str(timedelta(seconds=round(seconds)))


def _time_text(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
