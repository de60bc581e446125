"""One miner's view model: what it does, on which evidence, and what its orders came to. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from cloud.api.source import MinerRead
from cloud.api.views import formats, series
from cloud.api.views.formats import number
from cloud.api.views.heard import without_unheard_miner
from cloud.api.views.miners import HOT_C, MinerClass, classify, tried_in_vain
from cloud.api.views.plan import EVIDENCE
from cloud.api.views.site import WINDOWS, window_since
from cloud.api.views.wording import Level, Sentence, Tile, Verdict
from cloud.hosting.model import Desired, MinerRow, SiteSummary
from sitelink.types import Ack, MinerState, Notice, Reason, Verb

_REASONS: Final = {
    Reason.NONE: "",
    Reason.COMMANDED: "an order asked for it",
    Reason.STARTING: "it is starting",
    Reason.THERMAL: "too hot",
    Reason.FAULT: "it reports a fault",
    Reason.UNREACHABLE: "it cannot be reached",
    Reason.TIMEOUT: "it did not answer in time",
    Reason.GARBLED: "its answer cannot be read",
    Reason.ACCESS_DENIED: "it refuses access",
    Reason.WRONG_DEVICE: "another device answers at its address",
    Reason.SESSION_BUSY: "its only session is in use",
    Reason.NOT_REPORTED: "nothing was heard of it lately",
}
_NEXT: Final = {
    Reason.THERMAL: "Check its fans and inlet air.",
    Reason.FAULT: "Read its own log; a board or power supply may be dead.",
    Reason.UNREACHABLE: "Check power, then the network cable, then the switch port.",
    Reason.TIMEOUT: "Check the network of its rack.",
    Reason.GARBLED: "Update or restart its firmware.",
    Reason.ACCESS_DENIED: "Allow the agent's address in the device's API settings.",
    Reason.WRONG_DEVICE: "Correct the inventory, or put the right device back.",
    Reason.SESSION_BUSY: "Close the other tool that is connected to it.",
    Reason.NOT_REPORTED: "Check the site's link and agent first.",
}
_ACK_REASONS: Final = {
    "power_below_idle": "power fell below idle",
    "still_hashing": "it went on hashing",
    "not_down_yet": "its load had begun to fall and was not gone in time",
    "feeder_did_not_drop": "the feeder's power did not drop",
    "wrong_device": "another device answered",
    "unreachable": "it could not be reached",
}


@dataclass(frozen=True, slots=True)
class MinerChart:
    """Hash rate in TH/s, power in W and board temperature in °C on one axis; gaps up to ``bridge_s`` are polls."""

    seconds: tuple[int, ...]
    hashrate_ths: series.Values
    power_w: series.Values
    board_temp_c: series.Values
    bridge_s: float

    def document(self) -> dict[str, object]:
        """Return the chart as the browser takes it."""
        values = {"hashrate": self.hashrate_ths, "power": self.power_w, "temp": self.board_temp_c}
        return {"t": self.seconds, "bridge": self.bridge_s, **values}


@dataclass(frozen=True, slots=True)
class AckLine:
    """How one order ended for this miner."""

    ack: Ack
    level: Level
    evidence: str
    reason: str
    power: str


@dataclass(frozen=True, slots=True)
class MinerScreen:
    """Everything the miner page shows."""

    summary: SiteSummary
    miner: MinerRow
    as_of: datetime
    window: str
    verdict: Verdict
    tiles: tuple[Tile, ...]
    chart: MinerChart
    acks: tuple[AckLine, ...]
    notices: tuple[Notice, ...]
    control: str
    tried: bool


def build_miner(read: MinerRead, window: str | None) -> MinerScreen:
    """Return the miner page of ``read``; ``window`` None chooses one that the history fills."""
    read = without_unheard_miner(read)
    chosen = window or window_since(read.history[0].read_at if read.history else None, read.read_at)
    return MinerScreen(
        summary=read.summary,
        miner=read.miner,
        as_of=read.read_at,
        window=chosen,
        verdict=_verdict(read),
        tiles=_tiles(read.miner),
        chart=_chart(read, WINDOWS[chosen]),
        acks=tuple(_ack_line(ack) for ack in read.acks),
        notices=read.notices,
        control=_control(read.miner),
        tried=tried_in_vain(read.miner),
    )


def _verdict(read: MinerRead) -> Verdict:
    row = read.miner
    kind = classify(row)
    because = _REASONS[row.reason]
    why: Sentence = (because[:1].upper() + because[1:] + ". " if because else "", _NEXT.get(row.reason, ""))
    if kind is MinerClass.UNKNOWN:
        return Verdict(Level.UNKNOWN, _last_read(read), why)
    if kind is MinerClass.MISMATCH:
        says = "It says it stopped; the evidence says it did not." if row.liar else "Its stop is not confirmed."
        return Verdict(Level.HIGH, ("Should be off, is on.",), (f"{says} It does not count as shed.",))
    if kind is MinerClass.OFF:
        starting = row.reason is Reason.STARTING
        words = "Starting." if starting else "Off, should run."
        return Verdict(Level.NORMAL if starting else Level.HIGH, (words,), () if starting else why)
    if kind is MinerClass.STOPPED:
        return Verdict(Level.NORMAL, ("Stopped by plan.",), _until(read))
    if row.board_temp_c is not None and row.board_temp_c >= HOT_C:
        hot = f"Running at {formats.temperature(row.board_temp_c)}, limit {number(HOT_C)} °C."
        return Verdict(Level.CRITICAL, (hot,), ("Check its fans and inlet air.",))
    if row.liar:
        return Verdict(
            Level.HIGH, ("Running; it lied about its last stop.",), ("Inspect it before it is planned again.",)
        )
    return Verdict(Level.NORMAL, ("Running.",), ())


def _last_read(read: MinerRead) -> Sentence:
    """Return when a miner of unknown state was read last; one that is tried in vain was not read at its last try."""
    row = read.miner
    if row.read_at is None:
        return ("Never read.",)
    if not tried_in_vain(row):
        return ("State not known; last read at ", row.read_at, ".")
    good = [reading.read_at for reading in read.history if reading.state is not MinerState.UNKNOWN]
    since: Sentence = ("not read since ", max(good), ".") if good else ("not read since ", read.since, " or earlier.")
    return ("State not known; last tried at ", row.read_at, ", ", *since)


def _until(read: MinerRead) -> Sentence:
    stops = read.plan.stops if read.plan else ()
    holding = next((s for s in stops if s.interval.contains(read.read_at) and read.miner.miner_id in s.miner_ids), None)
    return ("Starts again at ", holding.interval.end, ".") if holding else ()


def _tiles(row: MinerRow) -> tuple[Tile, ...]:
    # A miner that does not answer has no figures of now: its last ones would pass for live.
    silent = classify(row) is MinerClass.UNKNOWN
    hashing, drawing = (None, None) if silent else (row.hashrate_ths, row.power_w)
    board, chip, fan = (None, None, None) if silent else (row.board_temp_c, row.chip_temp_c, row.fan_rpm)
    level = Level.UNKNOWN if silent else Level.NORMAL
    hot = Level.CRITICAL if board is not None and board >= HOT_C else level
    rate, watts = _of_nameplate(hashing, row.nameplate_ths, "TH/s"), _of_nameplate(drawing, row.nameplate_w, "W")
    limit = f"chip {formats.temperature(chip)} · limit {number(HOT_C)} °C"
    speed = formats.UNKNOWN if fan is None else formats.Figure(number(fan), "rpm")
    ask = "ordered off" if row.desired is Desired.STOP else "ordered to run"
    return (
        Tile("Hash rate", formats.device_hashrate(hashing), (rate,), level, "device"),
        Tile("Power", formats.device_power(drawing), (watts,), level, "device"),
        Tile("Board", formats.temperature(board), (limit,), hot, "device"),
        Tile("Fan", speed, (ask,), level, "device"),
    )


def _control(row: MinerRow) -> str:
    if not row.controllable:
        return "read only; plans leave it out"
    if row.nameplate_w is None or row.nameplate_ths is None:
        return "can be stopped and started; plans leave it out until its nameplate is in the inventory"
    return "can be stopped and started"


def _of_nameplate(value: float | None, nameplate: float | None, unit: str) -> str:
    if nameplate is None:
        return f"nameplate {formats.NOT_KNOWN}"
    plate = f"nameplate {number(nameplate)} {unit}"
    if value is None:
        return plate
    return f"{plate} · {number(100 * value / nameplate)} %"


def _chart(read: MinerRead, back: timedelta) -> MinerChart:
    axis = series.axis_around(read.read_at, back, timedelta(0))
    at_s = np.array([reading.read_at.timestamp() for reading in read.history])

    def means(values: list[float | None]) -> series.Values:
        return series.means(axis, at_s, np.array(values, dtype=np.float64))

    return MinerChart(
        seconds=axis.seconds,
        hashrate_ths=means([reading.hashrate_ths for reading in read.history]),
        power_w=means([reading.power_w for reading in read.history]),
        board_temp_c=means([reading.board_temp_c for reading in read.history]),
        bridge_s=series.bridge_s(axis, at_s),
    )


def _reads(ack: Ack) -> str:
    """Return what the device drew around the order; before a start, nothing is kept but an older figure."""
    before, after = formats.device_power(ack.power_before_w), formats.device_power(ack.power_after_w)
    if ack.verb is not Verb.START:
        return f"{before} → {after}"
    return f"{after} after the start" if after.known else formats.NOT_KNOWN


def _ack_line(ack: Ack) -> AckLine:
    return AckLine(
        ack=ack,
        level=Level.NORMAL if ack.outcome.value == "complete" else Level.HIGH,
        evidence=EVIDENCE[ack.evidence],
        reason=_ACK_REASONS.get(ack.reason, ack.reason.replace("_", " ")),
        power=_reads(ack),
    )
