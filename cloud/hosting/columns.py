"""A site's miners as columns: one array a field, one place a miner, and a miner as a row where one is wanted. Pure.

Reading 5,000 miners is then a few array operations; a row is made only for the miner somebody asks about.

Invariants: places follow the ids; what is not known is NaN in float columns and -1 in whole ones, and
None in a row; a miner not heard of for ``STALE_AFTER`` is UNKNOWN / NOT_REPORTED and has no figures.

    inventory   miner_id rack position ...      (tuples)
    records     state power_w ... ack_verb      (``latest.RECORD``, one a place)      -> MinerColumns[place] = MinerRow
    stopped     what orders in force ask
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from cloud.hosting import latest
from cloud.hosting.model import STALE_AFTER, Desired, MinerRow
from sitelink.codec import REASONS, STATES
from sitelink.types import MinerState, Reason, Verb
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts

HASHING: Final = STATES.index(MinerState.HASHING)
IDLE: Final = STATES.index(MinerState.IDLE)
UNKNOWN: Final = STATES.index(MinerState.UNKNOWN)
STARTING: Final = REASONS.index(Reason.STARTING)
_NOT_REPORTED: Final = REASONS.index(Reason.NOT_REPORTED)
_STOP: Final = latest.VERBS.index(Verb.STOP)
_FLOATS: Final = ("hashrate_ths", "power_w", "board_temp_c", "chip_temp_c")
_WHOLES: Final = ("fan_rpm", "uptime_s")

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a site's list says of its miners; all as long as ``miner_id``."""

    miner_id: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    dialect: tuple[str, ...] = ()
    feeder_id: tuple[str, ...] = ()
    rack: tuple[str, ...] = ()
    position: tuple[int, ...] = ()
    nameplate_w: tuple[float | None, ...] = ()
    nameplate_ths: tuple[float | None, ...] = ()
    controllable: tuple[bool, ...] = ()


INVENTORY_FIELDS: Final = tuple(field.name for field in fields(Inventory))


@dataclass(frozen=True, slots=True, eq=False)
class MinerColumns(Sequence[MinerRow]):
    """The miners of one site; ``records`` and ``stopped`` have one entry a miner."""

    inventory: Inventory
    records: latest.Records
    stopped: Bools

    def __len__(self) -> int:
        return len(self.inventory.miner_id)

    def __iter__(self) -> Iterator[MinerRow]:
        values = self.records.tolist()  # plain values at once: field by field out of numpy costs ten times as much
        for place, record in enumerate(values):
            yield self._row(place, dict(zip(_NAMES, record, strict=True)))

    @overload
    def __getitem__(self, place: int) -> MinerRow: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[MinerRow]: ...
    def __getitem__(self, place: int | slice) -> MinerRow | Sequence[MinerRow]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        return self._row(place, dict(zip(_NAMES, self.records[place].tolist(), strict=True)))

    @property
    def state(self) -> NDArray[np.uint8]:
        """Return each miner's state as an index into ``STATES``."""
        return self.records["state"]

    @property
    def reason(self) -> NDArray[np.uint8]:
        """Return each miner's reason as an index into ``REASONS``."""
        return self.records["reason"]

    @property
    def liar(self) -> Bools:
        """Return which miners lied about their last stop."""
        return self.records["liar"].astype(bool)

    @property
    def nameplate_ths(self) -> Floats:
        """Return the rated hash rates; NaN is not known."""
        return np.array(self.inventory.nameplate_ths, dtype=np.float64)

    @property
    def hottest_c(self) -> Floats:
        """Return the hottest board's temperature, or the hottest chip's where boards report none."""
        board, chip = self.records["board_temp_c"], self.records["chip_temp_c"]
        return np.where(np.isnan(board), chip, board).astype(np.float64)

    @property
    def newest(self) -> datetime | None:
        """Return when the newest reading was taken."""
        return latest.moment(int(self.records["read_at_ms"].max())) if len(self) else None

    def total(self, name: str) -> float | None:
        """Return the sum of what is known of a float column; None when nothing is."""
        values = self.records[name]
        known = ~np.isnan(values)
        return float(values[known].sum(dtype=np.float64)) if known.any() else None

    def forgotten(self, which: Bools) -> "MinerColumns":
        """Return the same miners, of which nothing of now is known where ``which`` is true."""
        records = self.records.copy()
        records["state"][which] = UNKNOWN
        records["reason"][which] = _NOT_REPORTED
        for name in _FLOATS:
            records[name][which] = np.nan
        for name in _WHOLES:
            records[name][which] = -1
        return replace(self, records=records)

    def ids(self, which: Bools) -> tuple[str, ...]:
        """Return the ids of the miners for which ``which`` is true."""
        return tuple(self.inventory.miner_id[place] for place in np.flatnonzero(which).tolist())

    def find(self, miner_id: str) -> MinerRow | None:
        """Return the miner of that id."""
        ids = self.inventory.miner_id
        return self[ids.index(miner_id)] if miner_id in ids else None

    def _row(self, place: int, record: dict[str, Any]) -> MinerRow:
        names = self.inventory
        return MinerRow(
            miner_id=names.miner_id[place],
            model=names.model[place],
            dialect=names.dialect[place],
            feeder_id=names.feeder_id[place],
            rack=names.rack[place],
            position=names.position[place],
            nameplate_w=_known(names.nameplate_w[place], Watts),
            nameplate_ths=_known(names.nameplate_ths[place], TeraHashPerSecond),
            controllable=names.controllable[place],
            desired=Desired.STOP if self.stopped[place] else Desired.RUN,
            liar=bool(record["liar"]),
            state=STATES[record["state"]],
            reason=REASONS[record["reason"]],
            hashrate_ths=_known(record["hashrate_ths"], TeraHashPerSecond),
            power_w=_known(record["power_w"], Watts),
            board_temp_c=_known(record["board_temp_c"], Celsius),
            chip_temp_c=_known(record["chip_temp_c"], Celsius),
            fan_rpm=None if record["fan_rpm"] < 0 else RevolutionsPerMinute(record["fan_rpm"]),
            uptime_s=None if record["uptime_s"] < 0 else record["uptime_s"],
            read_at=latest.moment(record["read_at_ms"]),
            **_ack_fields(record),
        )


_NAMES: Final = latest.RECORD.names or ()


def assemble(
    inventory: Inventory,
    records: latest.Records,
    stopped: frozenset[str],
    stop_commands: frozenset[str],
    now: datetime,
) -> MinerColumns:
    """Return the miners of ``inventory`` with what ``records`` (sorted by id) and orders in force say of them."""
    ids = np.array([name.encode() for name in inventory.miner_id], dtype=latest.RECORD["miner_id"])
    records = latest.take(records, ids)
    by_plan = np.fromiter((name in stopped for name in inventory.miner_id), dtype=bool, count=len(ids))
    commands = np.array([name.encode() for name in sorted(stop_commands)], dtype=latest.RECORD["ack_order"])
    last_was_stop = (records["ack_at_ms"] >= 0) & (records["ack_verb"] == _STOP)
    columns = MinerColumns(inventory, records, by_plan | (last_was_stop & np.isin(records["ack_order"], commands)))
    oldest_ms = int((now - STALE_AFTER).timestamp() * 1000)
    return columns.forgotten(records["read_at_ms"] < oldest_ms)


@dataclass(frozen=True, slots=True, eq=False)
class PowerColumns:
    """Metered power over time, oldest first: seconds since 1970 and watts, both as long."""

    at_s: Floats
    power_w: Floats

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def first_at(self) -> datetime | None:
        """Return when the first sample was taken."""
        return datetime.fromtimestamp(float(self.at_s[0]), UTC) if len(self) else None

    @property
    def last(self) -> tuple[datetime, Watts] | None:
        """Return the newest sample with its time."""
        if not len(self):
            return None
        return datetime.fromtimestamp(float(self.at_s[-1]), UTC), Watts(float(self.power_w[-1]))


NO_POWER: Final = PowerColumns(np.empty(0), np.empty(0))


def _ack_fields(record: dict[str, Any]) -> dict[str, Any]:
    at = latest.moment(record["ack_at_ms"])
    return {
        "last_ack_at": at,
        "last_ack_verb": None if at is None else latest.VERBS[record["ack_verb"]],
        "last_ack_outcome": None if at is None else latest.OUTCOMES[record["ack_outcome"]],
        "last_ack_evidence": None if at is None else latest.EVIDENCE[record["ack_evidence"]],
        "last_ack_reason": None if at is None else record["ack_reason"].decode(errors="replace"),
    }


def _known(value: float | None, unit: Any) -> Any:
    return None if value is None or math.isnan(value) else unit(value)
