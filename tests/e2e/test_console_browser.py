"""The console in a real Chromium: strict CSP without a violation, live updates, link loss, both widths, keyboard."""

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cloud.api.http import build_app
from cloud.api.live import LiveHub
from cloud.api.render import STATIC
from cloud.api.screens import Console
from sitelink.clock import SystemClock
from sitelink.units import UsdPerPetahashDay
from tests.unit.console import fakes

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
AXE = Path(__file__).resolve().parents[2] / "node_modules/axe-core/axe.min.js"
PAGES = ("/", "/sites/pecos-2", "/sites/pecos-2/plan", "/sites/pecos-2/miners", "/sites/pecos-2/miners/02:00:00:00:00:14",
         "/sites/odessa", "/sites/new-site", "/invoices", "/invoices/inv-1", "/account")  # fmt: skip


def barriers(page: Page) -> list[str]:
    """Return what axe finds that keeps people out, each with its place."""
    page.evaluate(AXE.read_text("utf-8"))
    result = page.evaluate("axe.run()")
    assert len(result["passes"]) > 10
    return [f"{page.url} {rule['id']}: {node['html']}" for rule in result["violations"] for node in rule["nodes"]]


class Served:
    """The console over fakes on a loopback port, in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        now = SystemClock().now()
        fakes.NOW = now
        self.reads = fakes.FakeReads(
            [fakes.normal_site(), fakes.shedding_site(), fakes.lost_site(), fakes.never_site()],
            now=now,
            invoice_reads=[fakes.invoice()],
        )
        self.accounts = fakes.FakeAccounts()
        self.hub = LiveHub(interval_s=0.2, heartbeat_s=0.5)
        console = Console(self.reads, self.accounts, self.hub, SystemClock(), UsdPerPetahashDay(50))
        config = uvicorn.Config(build_app(console), log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.serve([self._socket]))
        self._loop.close()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.hub.close)
            self._server.should_exit = True
            self._thread.join(15)
        self._socket.close()


@pytest.fixture
def served() -> Iterator[Served]:
    if not (STATIC / "manifest.json").is_file():
        pytest.fail("the console is not built: run make setup")
    usual = fakes.NOW
    made = Served()
    yield made
    made.stop()
    fakes.NOW = usual


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        message = "chromium absent: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield made
        made.close()


class Visit:
    """One signed-in page and everything the browser complained about."""

    def __init__(self, browser: Browser, served: Served, width: int = 1440, theme: str = "light") -> None:
        self.served = served
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{served.url}/login")
        self.page.get_by_label("Email").fill(fakes.EMAIL)
        self.page.get_by_label("Password").fill(fakes.PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()

    def go(self, path: str) -> None:
        self.page.goto(self.served.url + path)
        if self.page.locator("[data-stream]").count():
            expect(self.page.locator("#live-text")).to_have_text("live")


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_every_page_fits_and_breaks_no_rule(browser: Browser, served: Served, width: int, theme: str) -> None:
    visit = Visit(browser, served, width, theme)
    for path in PAGES:
        visit.go(path)
        assert barriers(visit.page) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, path
        if "data-chart" in visit.page.content():
            expect(visit.page.locator("#chart canvas").first).to_be_visible()
    assert visit.complaints == []


def test_the_way_in_and_errors_keep_nobody_out(browser: Browser, served: Served) -> None:
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    page.goto(f"{served.url}/login")
    assert barriers(page) == []
    served.accounts.must_change = True
    page.get_by_label("Email").fill(fakes.EMAIL)
    page.get_by_label("Password").fill("not it")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not right")
    assert barriers(page) == []
    page.get_by_label("Password").fill(fakes.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Change password")).to_be_visible()
    assert barriers(page) == []
    served.accounts.must_change = False
    page.goto(f"{served.url}/sites/none")
    expect(page.get_by_role("heading", name="There is nothing here.")).to_be_visible()
    assert barriers(page) == []


def test_figures_change_by_themselves(browser: Browser, served: Served) -> None:
    visit = Visit(browser, served)
    visit.go("/sites/pecos-1")
    expect(visit.page.locator("#verdict")).to_contain_text("Running to plan.")
    case = served.reads.cases[0]
    link = replace(case.link, up=False, last_heard=served.reads.now - timedelta(minutes=5))
    served.reads.cases[0] = replace(case, link=link)
    expect(visit.page.locator("#verdict")).to_contain_text("Site link lost")
    expect(visit.page.locator("#link")).to_contain_text("lost")
    served.reads.cases[0] = replace(case, rows=(*case.rows[:-1], fakes.silent(249)))
    expect(visit.page.locator("#rackcounts")).to_contain_text("9 not known")
    assert visit.complaints == []


def test_a_lost_database_shows_a_banner_that_goes_away(browser: Browser, served: Served) -> None:
    visit = Visit(browser, served)
    visit.go("/sites/pecos-1")
    served.reads.down = True
    expect(visit.page.locator("#link-banner")).to_contain_text("figures are last known")
    expect(visit.page.locator("#live-text")).to_have_text("not live")
    served.reads.down = False
    expect(visit.page.locator("#link-banner")).to_be_hidden()


def test_an_ended_session_asks_to_sign_in_again(browser: Browser, served: Served) -> None:
    visit = Visit(browser, served)
    visit.go("/")
    served.accounts.sessions.clear()
    expect(visit.page.locator("#link-banner")).to_contain_text("Your session has ended.")
    expect(visit.page.get_by_role("link", name="Sign in again")).to_be_visible()


def test_a_server_that_goes_away_is_noticed(browser: Browser, served: Served) -> None:
    visit = Visit(browser, served)
    visit.go("/sites/pecos-1")
    served.stop()
    expect(visit.page.locator("#link-banner")).to_be_visible(timeout=25_000)
    expect(visit.page.locator("#link-banner")).to_contain_text("Console link lost.")
    expect(visit.page.locator("#link-banner")).to_contain_text("old. Sites keep following the plan they hold.")


def test_the_rack_map_is_walked_by_keyboard(browser: Browser, served: Served) -> None:
    visit = Visit(browser, served)
    visit.go("/sites/pecos-2")
    visit.page.locator("#racks").focus()
    visit.page.keyboard.press("Home")
    visit.page.keyboard.press("ArrowRight")
    expect(visit.page.locator("#rack-readout")).to_contain_text("02:00:00:00:00:01 · rack C1-R1 · stopped by plan")
    visit.page.get_by_role("button", name="State").click()
    expect(visit.page.get_by_role("button", name="State")).to_have_attribute("aria-pressed", "true")
    visit.page.locator("#racks").focus()
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("heading", name="02:00:00:00:00:01")).to_be_visible()


def test_theme_and_zone_are_kept(browser: Browser, served: Served) -> None:
    visit = Visit(browser, served)
    visit.go("/sites/pecos-2")
    visit.page.locator("#theme").select_option("dark")
    visit.page.locator("#zone").select_option("utc")
    expect(visit.page.locator("#as-of time")).to_contain_text("UTC")
    visit.page.reload()
    expect(visit.page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(visit.page.locator("#as-of time")).to_contain_text("UTC")


def test_injected_markup_gains_nothing(browser: Browser, served: Served) -> None:
    served.reads.cases[0].name = '<img src=x onerror="document.title=1"><button hx-get="/logout">x</button>'
    visit = Visit(browser, served)
    visit.go("/sites/pecos-1")
    assert visit.page.locator("main img, main button[hx-get]").count() == 0
    assert Path(visit.page.url).name == "pecos-1"
