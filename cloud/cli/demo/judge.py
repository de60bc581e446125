"""Holds the cloud's records against the simulators' truth and returns the figures of the run."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloud.cli.demo.captures import Captured, weigh
from cloud.cli.demo.delivery import Delivery, tally
from cloud.cli.demo.figures import Figures
from cloud.cli.demo.record import Event, Record
from cloud.cli.demo.stage import SiteStage, Stage
from cloud.cli.demo.watch import TrueMiner, Watch
from cloud.hosting import queries as hosting
from sitelink.types import NoticeCode, Outcome, Verb

_ALL_NOTICES: Final = 100_000
_LOOKS: Final = 3
_CLOUDED: Final = "feeder_clouded"
_SEEN_BY_ITSELF: Final = "ack_without_effect"
"""The liar whose own telemetry gives it away: it says that it hashes on."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the cloud says of one site's curtailment, ids of miners; ``confirmed_at`` is the last proven stop.

    ``feeders`` are those whose meter showed more than their miners report; ``clouded`` miners read off on one of them,
    and their stop is credited to nobody: which of them lies, only a meter at the rack can tell.
    """

    verified: frozenset[str]
    named: frozenset[str]
    feeders: frozenset[str]
    clouded: frozenset[str]
    confirmed_at: datetime | None

    def names(self, liar: TrueMiner) -> bool:
        """Return whether this liar is pointed at by its own id."""
        return liar.miner_id in self.named

    def names_feeder_of(self, liar: TrueMiner) -> bool:
        """Return whether this liar, of the kind that only a meter sees, is pointed at by its feeder alone."""
        return not self.names(liar) and liar.liar != _SEEN_BY_ITSELF and liar.feeder_id in self.feeders

    def clouds(self, honest: TrueMiner, liars_on: Collection[str]) -> bool:
        """Return whether this stop is rightly left open: on a feeder of ``liars_on``, those with a liar at its site."""
        return honest.miner_id in self.clouded and honest.feeder_id in self.feeders and honest.feeder_id in liars_on


def judge(scene: Stage, record: Record, watch: Watch, kills: int) -> Figures:
    """Return the figures; what the story did not reach counts as not done."""
    claims = {site_id: _claims(watch, site_id, event) for site_id, event in record.events.items()}
    truth = {site_id: record.truth.get(site_id, {}) for site_id in record.events}
    ordered = [
        (truth[site_id][miner_id], claims[site_id])
        for site_id, event in record.events.items()
        for miner_id in event.miner_ids
        if miner_id in truth[site_id]
    ]
    liars = [(miner, claims[site_id]) for site_id, miners in truth.items() for miner in miners.values() if miner.liar]
    open_stops = [(miner, said) for miner, said in ordered if _honest(miner) and miner.miner_id not in said.verified]
    clouded = sum(1 for miner, said in open_stops if said.clouds(miner, hiding(liars, said)))
    sent = delivery(scene, record, watch)
    counts = watch.read(hosting.stored_counts)
    stored = watch.count_readings()
    return Figures(
        miners=scene.options.miners * len(scene.sites),
        samples_stored=0 if stored is None else stored.readings,
        samples_lost=sent.lost,
        samples_undelivered=sent.undelivered,
        samples_duplicated=0 if stored is None or counts is None else stored.doubled + counts.doubled,
        curtailed_miners=sum(1 for miner, _ in ordered if not miner.dead and not miner.liar),
        verified=sum(1 for miner, said in ordered if miner.miner_id in said.verified),
        liars=len(liars),
        liars_named=sum(1 for miner, said in liars if said.names(miner)),
        liars_named_by_feeder=sum(1 for miner, said in liars if said.names_feeder_of(miner)),
        liars_counted_as_shed=sum(1 for miner, said in liars if miner.miner_id in said.verified),
        honest_named=_honest_named(truth, claims),
        honest_clouded=clouded,
        honest_unverified=len(open_stops) - clouded,
        signal_to_confirmed_s=_longest_s(record, claims, lambda event: event.signal_at),
        start_to_confirmed_s=_longest_s(record, claims, lambda event: event.start),
        live_to_restore=record.live_to_restore,
        restored_during_cut=record.restored_during_cut,
        left_off=record.left_off,
        backlog_drained_s=record.drained_s,
        verified_mwh=record.verified_mwh,
        invoice_total_cents=record.invoice_cents,
        gap=record.gap,
        kills=kills,
        captured=None if scene.captures is None else _captured(watch, scene.captures),
    )


def delivery(scene: Stage, record: Record, watch: Watch) -> Delivery:
    """Return what of the samples is not stored.

    A story that was told has seen every number stored: what is missing since then is lost. One that broke off may have
    left the cable cut: what its agents still buffer is not lost. A loss stays, so what passes at a second look is none.
    """
    if record.all_stored:
        counts = watch.read(hosting.stored_counts)
        return Delivery(0 if counts is None else counts.missing, 0)
    found = Delivery(0, None)
    for _ in range(_LOOKS):
        agents = {site.site_id: watch.agent(site) for site in scene.all_sites}
        found = tally(watch.read(hosting.stored_counts), agents)
        if not found.lost:
            break
    return found


def _captured(watch: Watch, site: SiteStage) -> Captured:
    acks = watch.read(lambda uow: hosting.acks(uow, site.site_id)) or ()
    return weigh(watch.recorded(site), watch.kept(site) or {}, ordered=len(acks))


def _claims(watch: Watch, site_id: str, event: Event) -> Claims:
    acks = [
        ack
        for ack in watch.read(lambda uow: hosting.acks(uow, site_id)) or ()
        if ack.order_id in event.curtailment_ids and ack.verb is Verb.STOP and ack.miner_id
    ]
    last = {ack.miner_id: ack for ack in acks}
    complete = [ack for ack in last.values() if ack.outcome is Outcome.COMPLETE]
    notices = watch.read(lambda uow: hosting.notices(uow, site_id, _ALL_NOTICES)) or ()
    return Claims(
        verified=frozenset(ack.miner_id for ack in complete),
        named=frozenset(notice.subject for notice in notices if notice.code is NoticeCode.LIAR_NAMED),
        feeders=frozenset(notice.subject for notice in notices if notice.code is NoticeCode.FEEDER_DISAGREES),
        clouded=frozenset(ack.miner_id for ack in last.values() if ack.reason == _CLOUDED),
        confirmed_at=max((ack.at for ack in complete), default=None),
    )


def hiding(liars: Collection[tuple[TrueMiner, Claims]], site: Claims) -> set[str]:
    """Return the feeders of one site with a liar that only their meter sees: two sites may name their feeders alike."""
    return {miner.feeder_id for miner, said in liars if said is site and miner.liar != _SEEN_BY_ITSELF}


def _honest(miner: TrueMiner) -> bool:
    return not miner.dead and not miner.liar


def _honest_named(truth: dict[str, dict[str, TrueMiner]], claims: dict[str, Claims]) -> int:
    named: Collection[TrueMiner] = [
        truth[site_id][miner_id]
        for site_id, said in claims.items()
        for miner_id in said.named
        if miner_id in truth[site_id]
    ]
    return sum(1 for miner in named if _honest(miner))


def _longest_s(record: Record, claims: dict[str, Claims], since: Callable[[Event], datetime]) -> float | None:
    spans = [
        (said.confirmed_at - since(record.events[site_id])).total_seconds()
        for site_id, said in claims.items()
        if said.confirmed_at is not None
    ]
    return max(spans, default=None)
