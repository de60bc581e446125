"""Templates to HTML: one Jinja environment, strict about missing names, escaping always.

Invariants: a page's regions are Jinja blocks, rendered by the same code for the page and for the live stream; templates
hold no inline style, no inline script and no handler attribute (a test reads them all).
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from cloud.api.views import formats
from cloud.api.views.wording import Sentence, precise
from sitelink.types import Interval

CONSOLE: Final = Path(__file__).parent / "console"
STATIC: Final = CONSOLE / "static"
_UNIT: Final = re.compile(r"(?<=\d) (?=(?:%|°C|(?:MWh?|kWh|[PET]H/s|USD|W|rpm)\b))")
_STAMP: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)")
_FORMS: Final = {"date": "%Y-%m-%d %H:%M", "exact": "%Y-%m-%d %H:%M:%S", "second": "%H:%M:%S"}
_CODE: Final = re.compile(r"[a-z]+(?:_[a-z]+)+")
_CODES: Final = {"fallback_run_clock_untrusted": "miners run: the site clock is not trusted"}
_CHANGE: Final = re.compile(r"([a-z_]+) -> ([a-z_]+)")


def moment(value: datetime | None, form: str = "time") -> Markup:
    """Return ``value`` as a ``<time>`` that the browser shows in the viewer's zone; UTC without script.

    ``form`` is ``time`` (14:40 CST), ``second``, ``date``, ``exact`` (date, seconds) or ``age`` (2 min ago, growing).
    """
    if value is None:
        return Markup('<span class="unknown">{}</span>').format(formats.NOT_KNOWN)
    moment_utc = value.astimezone(UTC)
    shown = f"{moment_utc:{_FORMS.get(form, '%H:%M')}}"
    return Markup('<time datetime="{}" data-form="{}">{} UTC</time>').format(moment_utc.isoformat(), form, shown)


def sentence(parts: Sentence) -> Markup:
    """Return a sentence with its moments marked up; a figure keeps its unit, and a dot its line, at every width."""
    return Markup("").join(escape(_held(part)) if isinstance(part, str) else _within(part) for part in parts)


def _within(value: datetime) -> Markup:
    return moment(value, "second" if precise(value) else "time")


def period(interval: Interval) -> Markup:
    """Return an interval with its dates, to the second where it does not lie on full minutes."""
    form = "exact" if precise(interval.start) or precise(interval.end) else "date"
    return Markup("{} to {}").format(moment(interval.start, form), moment(interval.end, form))


def foreign(words: str) -> Markup:
    """Return words that a site or a document wrote: its UTC times as moments, its codes as words."""
    if _CODE.fullmatch(words):
        return escape(_CODES.get(words, words.replace("_", " ")))
    changed = _CHANGE.fullmatch(words)
    if changed:
        return escape(f"from {changed[1]} to {changed[2]}")
    parts, at = [], 0
    for found in _STAMP.finditer(words):
        parts += [escape(words[at : found.start()]), moment(datetime.fromisoformat(found[0]), "exact")]
        at = found.end()
    return Markup("").join([*parts, escape(words[at:])])


def _held(words: str) -> str:
    return _UNIT.sub("\u00a0", words).replace(" ·", "\u00a0·")


def data_island(value: object) -> Markup:
    """Return JSON that is safe inside a ``<script type="application/json">``."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704 - every "<" is escaped: no tag can begin


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the one environment of this process."""
    made = Environment(
        loader=FileSystemLoader(CONSOLE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        moment=moment, sentence=sentence, foreign=foreign, period=period, island=data_island, number=formats.number
    )
    made.globals["formats"] = formats
    made.globals["asset"] = asset
    made.globals["ui"] = made.get_template("macros.html").module
    return made


def asset(name: str) -> str:
    """Return the address of a bundled file, its content's hash in its name."""
    return f"/static/{_manifest().get(name, name)}"


@lru_cache(maxsize=1)
def _manifest() -> Mapping[str, str]:
    path = STATIC / "manifest.json"
    if not path.is_file():
        return {}
    names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return names


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a whole page."""
    shared = {
        "nonce": request.state.nonce,
        "theme": _theme(request),
        "path": request.url.path,
        "visitor": None,
        "stream": None,
    }
    html = environment().get_template(template).render(**(shared | values))
    return HTMLResponse(html, status)


def regions(template: str, names: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the blocks ``names`` of ``template`` as {name: HTML}, as they stand in the whole page."""
    loaded = environment().get_template(template)
    context = loaded.new_context(dict(values))
    return {name: "".join(loaded.blocks[name](context)) for name in names}


def _theme(request: Request) -> str:
    chosen = request.cookies.get("theme", "")
    return chosen if chosen in {"light", "dark"} else "auto"
