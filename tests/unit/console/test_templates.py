"""What no template may hold, whoever writes the next one: each would need eval, inline script or inline style."""

import re
import shlex

import pytest

from cloud.api.render import CONSOLE, data_island, foreign, moment, sentence
from tests.unit.console.fakes import NOW

TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))
FORBIDDEN = {
    "inline style": r"\sstyle\s*=|<style",
    "inline handler": r"\son[a-z]+\s*=",
    "htmx handler": r"hx-on",
    "evaluated value": r"[\"']\s*js:|javascript:",
    "evaluated trigger": r"hx-trigger\s*=\s*[\"'][^\"']*\[",
    "unescaped output": r"\|\s*safe\b",
    "foreign address": r"(?:src|href)\s*=\s*[\"'](?:https?:)?//",
}


def test_there_are_templates():
    assert len(TEMPLATES) > 8


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
@pytest.mark.parametrize("what", FORBIDDEN)
def test_template_holds_none_of(path, what):
    assert re.search(FORBIDDEN[what], path.read_text("utf-8"), re.IGNORECASE) is None


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_script_is_data_or_carries_the_nonce(path):
    for tag in re.findall(r"<script[^>]*>", path.read_text("utf-8")):
        assert 'type="application/json"' in tag or 'nonce="{{ nonce }}"' in tag


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_htmx_element_carries_the_nonce(path):
    for tag in re.findall(r"<[a-z][^>]*\shx-[^>]*>", path.read_text("utf-8")):
        assert "hx-nonce" in tag


def test_data_islands_cannot_be_broken_out_of():
    text = str(data_island({"name": "</script><script>alert(1)</script>\u2028"}))
    assert "<" not in text and "\u2028" not in text


def test_moments_are_marked_up_and_names_escaped():
    assert str(moment(NOW)) == '<time datetime="2026-11-24T20:05:07+00:00" data-form="time">20:05 UTC</time>'
    assert "not known" in str(moment(None))
    assert str(sentence(("<b>",))) == "&lt;b&gt;"


def test_words_of_others_show_their_times_in_the_viewers_zone_and_their_codes_as_words():
    shown = str(foreign("revision 5: <1> curtailment, valid until 2026-11-27 06:45:11.854707+00:00"))
    assert shown.startswith("revision 5: &lt;1&gt; curtailment, valid until <time ")
    assert 'data-form="exact">2026-11-27 06:45:11 UTC</time>' in shown
    assert str(foreign("fallback_run_clock_untrusted")) == "miners run: the site clock is not trusted"
    assert str(foreign("none -> synced")) == "from none to synced"
    assert str(foreign("price_above_break_even")) == "price above break even"


def test_a_figure_keeps_its_unit_on_its_line():
    held = "plan 0.768\u00a0MW\u00a0· \u22125.3\u00a0%\u00a0· 12 miners"
    assert str(sentence(("plan 0.768 MW · \u22125.3 % · 12 miners",))) == held


def test_every_command_a_page_names_is_one_that_exists():
    from cloud.cli.main import _parser

    blocks = [
        block
        for path in TEMPLATES
        for block in re.findall(r"<pre><code>(.*?)</code>", path.read_text("utf-8"), re.DOTALL)
    ]
    lines = [re.sub(r"\{\{.*?\}\}", "x", line) for block in blocks for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("ballast ") and "--help" not in line]
    assert len(commands) >= 4
    for command in commands:
        assert _parser(command).parse_args(command) is not None
