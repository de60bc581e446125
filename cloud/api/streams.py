"""What live pages send: a screen as regions of HTML, chart and map as data, and only what changed since the last frame.

Invariant: all parts of one frame come from one screen, hence one read.

    unnamed message   <hx-partial> of each region that changed          htmx swaps it
    event tick        {as_of, t, power}: the chart's last point         every frame
    event chart       the whole chart, when its axis or plan moved
    event racks       {layout, cells} whole, or {changes}: 5 bytes a changed cell
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio.to_thread

from cloud.api.live import Frame, event
from cloud.api.render import regions
from cloud.api.views.fleet import FleetScreen
from cloud.api.views.miner import MinerScreen
from cloud.api.views.miners import RackMap, cell_changes
from cloud.api.views.plan import PlanScreen
from cloud.api.views.site import Chart, SiteScreen


@dataclass(frozen=True, slots=True)
class Parts:
    """One screen, ready to send: ``texts`` are regions by name; ``chart_key`` changes when the chart must be resent."""

    texts: Mapping[str, str]
    tick: Mapping[str, object]
    chart: Callable[[], Mapping[str, object]] | None = None
    chart_key: object = None
    racks: RackMap | None = None


@dataclass(slots=True)
class PageFeed:
    """Turns the parts of successive screens into frames; ``make`` blocks and runs in a thread."""

    make: Callable[[], Parts]
    _last: Parts | None = field(default=None, init=False)

    async def __call__(self) -> Frame:
        """Return the next frame."""
        return await anyio.to_thread.run_sync(self._frame)

    def _frame(self) -> Frame:
        parts, last = self.make(), self._last
        self._last = parts
        whole = _encode(parts, None)
        return Frame(whole, whole if last is None else _encode(parts, last))


def _encode(parts: Parts, last: Parts | None) -> bytes:
    old = last.texts if last else {}
    changed = {name: html for name, html in parts.texts.items() if old.get(name) != html}
    messages = [event("".join(_partial(name, html) for name, html in changed.items()))] if changed else []
    if parts.chart is not None and (last is None or last.chart_key != parts.chart_key):
        messages.append(event(_json(parts.chart()), "chart"))
    if parts.racks is not None:
        messages.extend(_racks(parts.racks, last.racks if last else None))
    messages.append(event(_json(parts.tick), "tick"))
    return b"".join(messages)


def _partial(name: str, html: str) -> str:
    return f'<hx-partial hx-target="#{name}" hx-swap="innerMorph">{html}</hx-partial>'


def _racks(racks: RackMap, last: RackMap | None) -> list[bytes]:
    if last is not None and last.layout.digest == racks.layout.digest:
        if last.cells == racks.cells:
            return []
        changes = cell_changes(last.cells, racks.cells)
        if changes is not None:
            return [event(_json({"changes": b64encode(changes).decode("ascii")}), "racks")]
    return [event(_json(racks_document(racks)), "racks")]


def racks_document(racks: RackMap) -> dict[str, object]:
    """Return the map as the browser takes it; its layout is fetched once by digest."""
    return {"layout": racks.layout.digest, "racks": racks.layout.racks, "cells": racks.text}


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


SITE_REGIONS = ("verdict", "tiles", "alerts", "link", "rackcounts", "events")
PLAN_REGIONS = ("verdict", "tiles", "stops", "checks")
FLEET_REGIONS = ("verdict", "tiles", "sites")
MINER_REGIONS = ("verdict", "tiles", "facts", "acks")


def site_parts(screen: SiteScreen) -> Parts:
    """Return the site page's parts."""
    chart = screen.chart
    key = (chart.axis, chart.planned_mw, chart.windows)
    if not screen.census.total:  # such a page shows how to set the site up in place of chart and racks
        names = tuple(name for name in SITE_REGIONS if name != "rackcounts")
        return Parts(regions("site.html", names, {"screen": screen}), screen.tick())
    texts = regions("site.html", SITE_REGIONS, {"screen": screen})
    return Parts(texts, screen.tick(), chart.document, key, screen.racks)


def plan_parts(screen: PlanScreen) -> Parts:
    """Return the plan page's parts."""
    chart: Chart = screen.chart
    key = (chart.axis, chart.planned_mw, chart.plan_steps, chart.price_steps, chart.windows, chart.unheard_from)
    texts = regions("plan.html", PLAN_REGIONS, {"screen": screen})
    return Parts(texts, {"as_of": screen.as_of.isoformat()}, chart.document, key)


def fleet_parts(screen: FleetScreen) -> Parts:
    """Return the overview's parts."""
    texts = regions("overview.html", FLEET_REGIONS, {"screen": screen})
    return Parts(texts, {"as_of": screen.as_of.isoformat()})


def miner_parts(screen: MinerScreen) -> Parts:
    """Return the miner page's parts."""
    texts = regions("miner.html", MINER_REGIONS, {"screen": screen})
    return Parts(texts, {"as_of": screen.as_of.isoformat()}, screen.chart.document, screen.chart)
