"""The story the demo plays, step by step. Each step waits for the world to show what the step claims.

    open -> poll -> stream -> plan -> start -> cut -> hold -> restore (still cut) -> deliver -> verify -> price -> count

Invariant: a step that does not come true in time ends the story with the reason; no later step is claimed.
"""

import threading
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final, TypeVar

from cloud.cli.demo import captures, wording
from cloud.cli.demo.narrator import Narrator, SiteLine
from cloud.cli.demo.pricing import price
from cloud.cli.demo.processes import Crew
from cloud.cli.demo.record import Record
from cloud.cli.demo.sites import Sites
from cloud.cli.demo.stage import SiteStage, Stage
from cloud.cli.demo.watch import TrueMiner, Watch
from cloud.core.errors import CloudError
from cloud.hosting import queries as hosting
from cloud.hosting.model import SiteSummary
from sitelink.clock import Clock
from sitelink.types import MinerState

_PAUSE_S: Final = 0.25
_BASELINE_S: Final = 10.0
_SHOW_SITES_S: Final = 1.0
_Found = TypeVar("_Found")


class StepFailed(Exception):
    """What a step claims did not come true in time; the message is what was seen instead."""


class Story:
    """Plays the steps in order and keeps the record."""

    def __init__(self, scene: Stage, crew: Crew, watch: Watch, narrator: Narrator, clock: Clock) -> None:
        self.record = Record()
        self._scene = scene
        self._crew = crew
        self._watch = watch
        self._sites = Sites(scene, watch, self.record, clock)
        self._narrator = narrator
        self._clock = clock
        self._slack = 3.0 if scene.options.kills else 1.0
        self._before_kw: dict[str, float] = {}
        self._shown_at = 0.0
        self._idle = threading.Event()

    def titles(self) -> tuple[str, ...]:
        """Return the steps' titles in order."""
        return tuple(title for title, _ in self._steps())

    def play(self) -> None:
        """Play every step.

        Raises:
            StepFailed: a step did not come true in time.
        """
        for title, step in self._steps():
            self._narrator.begin(title)
            try:
                detail = step(lambda line, title=title: self._narrator.progress(title, line))  # type: ignore[misc]
            except StepFailed as failure:
                self._narrator.end(title, held=False, detail=str(failure))
                raise StepFailed(f"{title}: {failure}") from None
            self._narrator.end(title, held=True, detail=detail)

    def _steps(self) -> tuple[tuple[str, Callable[[Callable[[str], None]], str]], ...]:
        recorded = (("Read the recorded devices", self._read_recorded),) if self._scene.captures else ()
        return (
            (f"Enrol {'three' if self._scene.captures else 'two'} sites", self._enrol),
            ("Poll every miner", self._poll),
            *recorded,
            ("Stream to the cloud", self._stream),
            ("Plan for the price spike", self._plan),
            ("Start the curtailment", self._start),
            ("Pull the cable mid-ramp", self._cut),
            ("Hold without the cloud", self._hold),
            ("Restore on time, still cut", self._restore),
            ("Plug in: deliver the backlog", self._deliver),
            ("Verify against the meter", self._verify),
            ("Price it", self._price),
            ("Count every sample", self._count),
        )

    def _enrol(self, say: Callable[[str], None]) -> str:
        def connected() -> str | None:
            up = [site.site_id for site in self._sites.summaries() if site.link.up]
            say(f"{len(up)} of {len(self._scene.all_sites)} agents connected over mutual TLS")
            return ", ".join(up) if len(up) == len(self._scene.all_sites) else None

        return f"{self._wait(connected, 30, 'the agents did not connect')} connected over mutual TLS"

    def _poll(self, say: Callable[[str], None]) -> str:
        dead = {site.site_id: self._sites.dead(site) for site in self._scene.sites}

        def answered() -> str | None:
            sites = [site for site in self._sites.summaries() if site.site_id in dead]
            live = sum(site.hashing + site.idle for site in sites)
            expected = sum(self._scene.options.miners - dead[site.site_id] for site in sites)
            say(f"{live} of {expected} live miners read")
            if not sites or live < expected:
                return None
            return f"{live} miners read in five dialects; {sum(dead.values())} dead ones shown as unknown"

        return self._wait(answered, 30, "not every live miner was read")

    def _read_recorded(self, say: Callable[[str], None]) -> str:
        site = self._scene.captures
        assert site is not None
        devices = self._watch.recorded(site)

        def read() -> str | None:
            rows = self._watch.read(lambda uow: hosting.site_miners(uow, site.site_id)) or ()
            known = {row.miner_id for row in rows if row.state is not MinerState.UNKNOWN}
            told = captures.describe(devices, known, {row.miner_id: row.reason.value for row in rows})
            say(told)
            return None if captures.waiting(devices, known) else told

        return self._wait(read, 30, "not every readable recorded device was read")

    def _stream(self, say: Callable[[str], None]) -> str:
        began = self._clock.monotonic()
        self.record.metered_from = self._clock.now()

        def stored() -> str | None:
            counts = self._watch.read(hosting.stored_counts)
            if counts is None:
                return None
            say(f"{counts.items} items stored and acknowledged")
            enough = self._clock.monotonic() - began >= _BASELINE_S
            return f"{counts.items} items stored, then acknowledged, then settled" if enough else None

        detail = self._wait(stored, 30, "the store does not answer")
        metered = {site.site_id: site.power_w for site in self._sites.summaries() if site.power_w is not None}
        self._before_kw = {site_id: power_w / 1e3 for site_id, power_w in metered.items()}
        return detail

    def _plan(self, say: Callable[[str], None]) -> str:
        def accepted() -> str | None:
            for site in self._scene.sites:
                event = self._sites.accepted(site)
                if event is None:
                    say(f"waiting for {site.site_id} to accept a plan")
                    return None
                self.record.events[site.site_id] = event
                self.record.truth[site.site_id] = self._watch.truth(site)
            return "planned"

        self._wait(accepted, 40, "no site accepted a plan with a curtailment")
        miners = sum(len(event.miner_ids) for event in self.record.events.values())
        start = min(event.start for event in self.record.events.values())
        ahead = (start - self._clock.now()).total_seconds()
        gap = "not known" if self.record.gap is None else f"{self.record.gap:.1e}"
        return f"stop {miners} miners {wording.ahead(ahead)}, least efficient first; signed and accepted; gap {gap}"

    def _start(self, say: Callable[[str], None]) -> str:
        def stopping() -> str | None:
            stopped, planned = self._sites.truly_stopped()
            say(f"{stopped} of {planned} miners idle")
            enough = stopped >= max(1, planned // 10)
            return f"{stopped} miners idle so far, a feeder's miners within a second" if enough else None

        return self._wait(stopping, 60, "no miner stopped")

    def _cut(self, say: Callable[[str], None]) -> str:
        for site in self._scene.sites:
            self._watch.set_cable(site, "cut")
        for site in self._scene.sites:
            # The plan the site holds now is the one it must finish alone.
            self.record.events[site.site_id] = self._sites.accepted(site) or self.record.events[site.site_id]

        def noticed() -> str | None:
            down = [site for site in self._scene.sites if self._sites.has_no_link(site)]
            say(f"{len(down)} agents know that their link is down")
            return f"{len(down)} agents know it, and go on" if len(down) == len(self._scene.sites) else None

        return self._wait(noticed, 20, "an agent still believes in its link")

    def _hold(self, say: Callable[[str], None]) -> str:
        release = min(event.release for event in self.record.events.values())
        seen: list[Collection[TrueMiner]] = []

        def held() -> str | None:
            in_time = self._clock.now() < release
            honest = self._sites.honest()
            running = [miner for miner in honest if miner.hashing]
            if in_time or not seen:  # past the release they rightly start again: that look tells nothing of the stop
                seen[:] = [running]
            stopped, planned = len(honest) - len(running), len(honest)
            say(f"{stopped} of {planned} live, honest miners idle")
            liars = sum(1 for site in self._scene.sites for miner in self._sites.planned(site) if miner.liar)
            return f"{stopped} miners idle, {liars} liars still running" if stopped == planned else None

        return self._wait(held, 60, lambda: f"not every live miner stopped, {wording.missing(seen[0])};", until=release)

    def _restore(self, say: Callable[[str], None]) -> str:
        release = max(event.release for event in self.record.events.values())
        live = {site.site_id: [m for m in self._sites.planned(site) if not m.dead] for site in self._scene.sites}
        self.record.live_to_restore = sum(len(miners) for miners in live.values())

        def restored() -> str | None:
            back = sum(1 for site in self._scene.sites for m in self._sites.planned(site) if m.hashing and not m.dead)
            left = (release - self._clock.now()).total_seconds()
            say(f"release in {left:.0f} s" if left > 0 else f"{back} of {self.record.live_to_restore} hashing again")
            self.record.restored_during_cut = back if left <= 0 else 0
            done = left <= 0 and back == self.record.live_to_restore
            return (
                f"{back} of {back} live miners hashing again, {-left:.0f} s after release, no cable" if done else None
            )

        within = (release - self._clock.now()).total_seconds() + 60
        return self._wait(restored, within, "live miners were left off")

    def _deliver(self, say: Callable[[str], None]) -> str:
        backlog = [self._watch.agent(site) for site in self._scene.sites]
        waiting = sum(status["backlog"]["batches"] for status in backlog if status)
        sealed = {site.site_id: self._sealed(site) for site in self._scene.sites}
        for site in self._scene.sites:
            self._watch.set_cable(site, "up")
        began = self._clock.monotonic()

        def delivered() -> str | None:
            left = sum(self._sites.lacking(site, *sealed[site.site_id]) for site in self._scene.sites)
            say(f"{left} items to go")
            return None if left else "delivered"

        self._wait(delivered, 60, "the backlog was not delivered")
        self.record.drained_s = self._clock.monotonic() - began
        return f"{waiting} buffered batches stored in {self.record.drained_s:.1f} s"

    def _verify(self, say: Callable[[str], None]) -> str:
        def verified() -> str | None:
            mwh = [self._sites.verified_mwh(site) for site in self._scene.sites]
            say(f"{sum(1 for value in mwh if value is not None)} of {len(mwh)} sites verified")
            if any(value is None for value in mwh):
                return None
            self.record.verified_mwh = sum(value or 0.0 for value in mwh)
            return f"{self.record.verified_mwh * 1000:.1f} kWh less than the baseline at the site meters"

        detail = self._wait(verified, 60, "a curtailment was not verified")
        self.record.left_off = sum(
            1
            for site in self._scene.sites
            for miner in self._sites.planned(site)
            if not miner.dead and not miner.hashing and not self._sites.is_planned_again(site, miner.miner_id)
        )
        return detail

    def _price(self, say: Callable[[str], None]) -> str:
        say("issuing an energy invoice a site")
        try:
            priced = price(self._watch, self._scene.sites, self.record.metered_from, self._clock.now())
        except CloudError as error:
            raise StepFailed(str(error)) from None
        self.record.invoice_cents = priced.total_cents
        if not priced.agree:
            raise StepFailed(f"the verifier disagrees: {priced.detail}")
        return priced.detail

    def _count(self, say: Callable[[str], None]) -> str:
        sealed = {site.site_id: self._sealed(site) for site in self._scene.all_sites}

        def complete() -> str | None:
            left = sum(self._sites.lacking(site, *sealed[site.site_id]) for site in self._scene.all_sites)
            say(f"{left} of the numbers given so far are not stored")
            counts = self._watch.read(hosting.stored_counts)
            stored = self._watch.count_readings()
            if left or counts is None or stored is None:
                return None
            self.record.all_stored = True
            return (
                f"{stored.readings} readings stored: {counts.missing} lost, {stored.doubled + counts.doubled} doubled"
            )

        return self._wait(complete, 30, "items that the agents numbered are not all stored")

    def _wait(
        self,
        look: Callable[[], _Found | None],
        within_s: float,
        otherwise: str | Callable[[], str],
        until: datetime | None = None,
    ) -> _Found:
        """Look until something is found; ``until`` is the moment past which it cannot be, whatever the patience."""
        deadline = self._clock.monotonic() + within_s * self._slack
        while True:
            found = look()
            if found is not None:
                return found
            if self._clock.monotonic() > deadline:
                limit = f"within {within_s * self._slack:.0f} s"
            elif until is not None and self._clock.now() >= until:
                limit = f"by the release at {until:%H:%M:%S} UTC"
            else:
                limit = ""
            if limit:
                raise StepFailed(f"{otherwise if isinstance(otherwise, str) else otherwise()} {limit}")
            self.show_sites()
            self._idle.wait(_PAUSE_S)

    def show_sites(self) -> None:
        """Show the sites as they are, at most once a second."""
        if self._clock.monotonic() - self._shown_at < _SHOW_SITES_S:
            return
        self._shown_at = self._clock.monotonic()
        lines = tuple(self._site_line(site) for site in self._sites.summaries())
        if lines:
            self._narrator.show_sites(lines)

    def _site_line(self, site: SiteSummary) -> SiteLine:
        return SiteLine(
            site_id=site.site_id,
            meter_kw=None if site.power_w is None else site.power_w / 1e3,
            baseline_kw=self._before_kw.get(site.site_id),
            hashing=site.hashing,
            idle=site.idle,
            unknown=site.unknown,
            link="live" if site.link.up else "down",
            backlog=str(site.link.backlog_batches) if site.link.up else "not known",
            plan=f"revision {site.link.plan_revision}",
        )

    def _sealed(self, site: SiteStage) -> tuple[str, int]:
        """Return the epoch a site's agent numbers its items in, and the next number."""

        def told() -> tuple[str, int] | None:
            status = self._watch.agent(site)
            return None if status is None else (status["numbering"]["epoch"], int(status["numbering"]["next_seq"]))

        return self._wait(told, 20, f"the agent of {site.site_id} does not tell its status")
