"""A meter's figures out of a page or a file: a bare number, or a JSON document and where in it they stand.

Invariants: a text that is no such document, or lacks the power, is an error and never zero; a page is asked with a
deadline and a cap, a file with a deadline, because its mount may hang, and nothing but a file, because a pipe waits for
its writer; a file that nobody has written anew for
``max_age_s`` tells nothing.
"""

import asyncio
import json
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent.aside import Aside
from agent.cgminer.client import Address, Deadlines
from agent.cgminer.sections import dig, number
from agent.cgminer.web import WebClient
from agent.errors import Garbled, TimedOut, Transient
from agent.meters.figures import Figures
from sitelink.clock import Clock
from sitelink.meter_source import FileSource, PageSource, Selectors
from sitelink.units import Watts

_CAP_BYTES: Final = 65_536
_OK: Final = 200
_FILES: Final = Aside(16, "meters")
"""Apart from the state folder's: a mount that went away holds up these alone."""
_Look = tuple[bytes, os.stat_result]


class PageFigures:
    """A page on a web server."""

    def __init__(self, source: PageSource) -> None:
        self._source = source
        self._client: WebClient | None = None

    async def read(self, timeout_s: float) -> Figures:
        """Return the figures. Raises as ``WebClient.request``, and Garbled when they do not stand there."""
        source = self._source
        if self._client is None:
            deadlines = Deadlines(timeout_s, timeout_s, timeout_s, _CAP_BYTES)
            self._client = WebClient(Address(source.host, source.port), deadlines)
        reply = await self._client.request("GET", source.target)
        where = f"{source.host}:{source.port}{source.target}"
        if reply.status != _OK:
            raise Garbled(f"{where}: answers with status {reply.status}; check the path in meters.csv")
        return figures_in(reply.body, source.selectors, where)

    def close(self) -> None:
        """Close its connection."""
        if self._client is not None:
            self._client.close()


class FileFigures:
    """A file that another program writes."""

    def __init__(self, source: FileSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._looking: asyncio.Future[_Look] | None = None
        self._written_ns = 0
        self._seen_mono: float | None = None

    async def read(self, timeout_s: float) -> Figures:
        """Return the figures.

        Raises:
            Transient: it is not there, or nobody writes it any more.
            TimedOut: its disk does not answer; no other look begins before this one has ended.
            Garbled: the figures do not stand there.
        """
        path = Path(self._source.path)
        if self._looking is None or self._looking.done():
            self._looking = _FILES.run(partial(_begun, path))
            self._looking.add_done_callback(_heard)
        done, _ = await asyncio.wait((self._looking,), timeout=timeout_s)
        if not done:
            raise TimedOut(f"{path}: not read within {timeout_s:g} s; check the disk or mount that it lies on")
        text, written = self._looking.result()
        self._check_age(path, written)
        return figures_in(text, self._source.selectors, str(path))

    def close(self) -> None:
        """Nothing is kept open."""

    def _check_age(self, path: Path, written: os.stat_result) -> None:
        """Refuse an old text: by the wall clock at first sight, then by how long it has not changed."""
        now_mono, limit_s = self._clock.monotonic(), self._source.max_age_s
        if written.st_mtime_ns != self._written_ns:
            first, self._written_ns = self._seen_mono is None, written.st_mtime_ns
            age_s = abs(self._clock.now().timestamp() - written.st_mtime) if first else 0.0
            self._seen_mono = now_mono - age_s
        if self._seen_mono is None or now_mono - self._seen_mono > limit_s:
            raise Transient(f"{path}: not written for {limit_s:g} s; check the program that writes it")


def _heard(look: "asyncio.Future[_Look]") -> None:
    """Take note of how a look ended, though its asker may have given up."""
    if not look.cancelled():
        look.exception()


def _begun(path: Path) -> _Look:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Transient(f"{path}: is a pipe, device or folder; name a file in meters.csv that is written anew")
            return os.read(handle, _CAP_BYTES), status
        finally:
            os.close(handle)
    except OSError as error:
        raise Transient(f"{path}: cannot be read: {error.strerror}; check the program that writes it") from None


def figures_in(text: bytes, selectors: Selectors, where: str) -> Figures:
    """Return the figures that stand in ``text``.

    Raises:
        Garbled: it is no number or document, or the power does not stand where it should.
    """
    try:
        document = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Garbled(f"{where}: holds neither a number nor JSON; check what is written there") from None
    power = _figure(document, selectors.power)
    if power is None:
        place = f" at {selectors.power!r}" if selectors.power else ""
        raise Garbled(f"{where}: no number stands{place}; correct power= in meters.csv")
    energy = _figure(document, selectors.energy) if selectors.energy else None
    energy_wh = None if energy is None else energy * selectors.energy_factor
    return Figures(Watts(power * selectors.power_factor), energy_wh)


def _figure(document: Any, place: str) -> float | None:
    return number(dig(document, place.split(".") if place else ()))
