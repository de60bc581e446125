"""How the story's sites stand now: by the simulators' truth, the agents' status and the cloud's records together.

Invariant: what a source does not tell counts as not there yet, never as done.
"""

from collections.abc import Collection, Iterable

from cloud.cli.demo import delivery
from cloud.cli.demo.record import Event, Record
from cloud.cli.demo.stage import SiteStage, Stage
from cloud.cli.demo.watch import TrueMiner, Watch
from cloud.hosting import queries as hosting
from cloud.hosting.model import SiteSummary
from cloud.planner import queries as planner
from sitelink.clock import Clock


class Sites:
    """Answers one question a call, each time anew; the curtailments under way are those of ``record``."""

    def __init__(self, scene: Stage, watch: Watch, record: Record, clock: Clock) -> None:
        self._scene = scene
        self._watch = watch
        self._record = record
        self._clock = clock

    def summaries(self) -> tuple[SiteSummary, ...]:
        """Return the cloud's overview of the sites; none while it does not answer."""
        return self._watch.read(hosting.fleet_overview) or ()

    def dead(self, site: SiteStage) -> int:
        """Return how many of a site's miners are dead."""
        return sum(1 for miner in self._watch.truth(site).values() if miner.dead)

    def planned(self, site: SiteStage) -> Iterable[TrueMiner]:
        """Return the miners that are to stop at a site, as they really are."""
        truth = self._watch.truth(site)
        return [truth[miner_id] for miner_id in self._record.events[site.site_id].miner_ids]

    def honest(self) -> Collection[TrueMiner]:
        """Return the live, honest miners that are to stop."""
        return [miner for site in self._scene.sites for miner in self.planned(site) if not (miner.dead or miner.liar)]

    def truly_stopped(self) -> tuple[int, int]:
        """Return how many of the live, honest miners that are to stop have, and how many there are."""
        honest = self.honest()
        return sum(1 for miner in honest if not miner.hashing), len(honest)

    def accepted(self, site: SiteStage) -> Event | None:
        """Return the curtailment that cloud and agent agree on, None until they do; its gap goes on the record."""
        status = self._watch.agent(site)
        view = self._watch.read(lambda uow: planner.current_plan(uow, site.site_id))
        if (
            status is None
            or view is None
            or not view.curtailments
            or (status["plan"] or {}).get("revision") != view.revision
        ):
            return None
        self._record.gap = max(self._record.gap or 0.0, view.gap)
        first = min(view.curtailments, key=lambda item: item.interval.start)
        release, members = first.interval.end, [first]
        for item in sorted(view.curtailments, key=lambda item: item.interval.start)[1:]:
            if item.interval.start <= release:
                members.append(item)
                release = max(release, item.interval.end)
        return Event(
            revision=view.revision,
            curtailment_ids=tuple(item.curtailment_id for item in members),
            miner_ids=frozenset(miner for item in members for miner in item.miner_ids),
            signal_at=min(item.signal_at for item in members),
            start=first.interval.start,
            release=release,
        )

    def is_planned_again(self, site: SiteStage, miner_id: str) -> bool:
        """Return whether a curtailment of the plan in force holds this miner now."""
        view = self._watch.read(lambda uow: planner.current_plan(uow, site.site_id))
        now = self._clock.now()
        return view is not None and any(
            miner_id in item.miner_ids and item.interval.contains(now) for item in view.curtailments
        )

    def verified_mwh(self, site: SiteStage) -> float | None:
        """Return the energy that the meter shows was not used, None until every part is verified."""
        rows = self._watch.read(lambda uow: planner.verifications(uow, site.site_id)) or ()
        wanted = set(self._record.events[site.site_id].curtailment_ids)
        found = {row.curtailment_id: row.verified_mwh for row in rows if row.curtailment_id in wanted}
        known = [float(mwh) for mwh in found.values() if mwh is not None]
        return sum(known) if len(known) == len(wanted) else None

    def lacking(self, site: SiteStage, epoch: str, next_seq: int) -> int:
        """Return how many numbers below ``next_seq`` the store lacks."""
        return delivery.lacking(self._watch.read(hosting.stored_counts), site.site_id, epoch, next_seq)

    def has_no_link(self, site: SiteStage) -> bool:
        """Return whether the site's agent knows that its link is down."""
        status = self._watch.agent(site)
        return status is not None and status["link"]["up"] is False
