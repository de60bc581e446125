"""What the person at the terminal sees: the story as a table that fills in, and the sites as they are now.

Invariant: everything goes to standard error, so that standard output carries only the JSON line of a headless run.
Without a terminal each step prints one plain line when it begins and one when it ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sitelink.clock import Clock


class Mark(Enum):
    """How far a step is."""

    WAITING = " "
    RUNNING = "▸"
    HELD = "✓"
    FAILED = "✗"


@dataclass(slots=True)
class Step:
    """One step of the story as shown."""

    title: str
    mark: Mark = Mark.WAITING
    detail: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SiteLine:
    """One site as shown; power in kW, None where not known."""

    site_id: str
    meter_kw: float | None
    baseline_kw: float | None
    hashing: int
    idle: int
    unknown: int
    link: str
    backlog: str
    plan: str


@dataclass(slots=True)
class Narrator:
    """Shows the steps and the sites; ``terminal`` False prints plain lines instead of a live table."""

    clock: Clock
    terminal: bool
    titles: Sequence[str] = ()
    heading: str = ""
    steps: list[Step] = field(default_factory=list)
    sites: tuple[SiteLine, ...] = ()
    _live: Live | None = None
    _console: Console = field(default_factory=lambda: Console(stderr=True))
    _began: float = 0.0

    def __enter__(self) -> Self:
        self.steps = [Step(title) for title in self.titles]
        if self.terminal:
            self._live = Live(self._picture(), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._picture())
            self._live.stop()

    def say(self, line: str) -> None:
        """Print one line above the table."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def begin(self, title: str) -> None:
        """Mark the step as running."""
        step = self._step(title)
        step.mark = Mark.RUNNING
        self._began = self.clock.monotonic()
        self._plain(f"{Mark.RUNNING.value} {title}")
        self.refresh()

    def progress(self, title: str, detail: str) -> None:
        """Show how far the running step is."""
        self._step(title).detail = detail
        self._step(title).seconds = self.clock.monotonic() - self._began
        self.refresh()

    def end(self, title: str, held: bool, detail: str) -> None:
        """Mark the step as held or failed."""
        step = self._step(title)
        step.mark = Mark.HELD if held else Mark.FAILED
        step.detail = detail
        step.seconds = self.clock.monotonic() - self._began
        self._plain(f"{step.mark.value} {title}: {detail} ({step.seconds:.1f} s)")
        self.refresh()

    def show_sites(self, sites: tuple[SiteLine, ...]) -> None:
        """Show the sites as they are now."""
        self.sites = sites
        self.refresh()

    def refresh(self) -> None:
        """Draw the picture again."""
        if self._live is not None:
            self._live.update(self._picture())

    def _step(self, title: str) -> Step:
        return next(step for step in self.steps if step.title == title)

    def _plain(self, line: str) -> None:
        if not self.terminal:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _picture(self) -> Group:
        return Group(Text.from_markup(self.heading), _story_table(self.steps), _site_table(self.sites))


_STYLES = {Mark.WAITING: "dim", Mark.RUNNING: "bold", Mark.HELD: "", Mark.FAILED: "bold red"}


def _story_table(steps: Sequence[Step]) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("", width=1)
    table.add_column("Step", no_wrap=True)
    table.add_column("What happened", ratio=1)
    table.add_column("s", justify="right", width=6)
    for step in steps:
        seconds = "" if step.seconds is None else f"{step.seconds:.1f}"
        table.add_row(step.mark.value, step.title, step.detail, seconds, style=_STYLES[step.mark])
    return table


def _site_table(sites: Sequence[SiteLine]) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, title=None)
    table.add_column("Site", no_wrap=True)
    for name in ("Meter kW", "Before kW", "Hashing", "Idle", "Unknown"):
        table.add_column(name, justify="right")
    for name in ("Link", "Buffered", "Plan"):
        table.add_column(name, no_wrap=True)
    for site in sites:
        table.add_row(
            site.site_id,
            _kilowatts(site.meter_kw),
            _kilowatts(site.baseline_kw),
            str(site.hashing),
            str(site.idle),
            str(site.unknown),
            site.link,
            site.backlog,
            site.plan,
        )
    return table


def _kilowatts(value: float | None) -> str:
    return "not known" if value is None else f"{value:.0f}"
