"""The HTTP side over fakes: who gets in, what every answer carries, and that pages and JSON agree."""

import asyncio
import re

import httpx
import pytest
from starlette.routing import Mount, Route

from cloud.api.http import OPEN_PATHS, build_app
from cloud.api.live import LiveHub
from cloud.api.screens import Console
from cloud.core.access import Principal, Role
from cloud.identity.model import SESSION_LENGTH
from sitelink.clock import ManualClock
from sitelink.units import UsdPerPetahashDay
from tests.unit.console.fakes import (
    EMAIL,
    NOW,
    PASSWORD,
    TENANT,
    FakeAccounts,
    FakeReads,
    huge_site,
    invoice,
    lost_site,
    never_site,
    normal_site,
    shedding_site,
)

SITES = [normal_site, shedding_site, lost_site, never_site, huge_site]


class Client:
    """A browser without script: keeps cookies, follows nothing."""

    def __init__(self, app, base_url):
        self._app, self._base_url, self._cookies = app, base_url, httpx.Cookies()

    def request(self, method, path, **values):
        return asyncio.run(self._request(method, path, **values))

    async def _request(self, method, path, **values):
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=self._base_url, cookies=self._cookies) as client:
            answer = await client.request(method, path, **values)
            self._cookies = client.cookies
            return answer

    def get(self, path, **values):
        return self.request("GET", path, **values)

    def post(self, path, **values):
        return self.request("POST", path, **values)


class Bench:
    """One application over fakes, and a browser's worth of client."""

    def __init__(self, base_url="http://127.0.0.1"):
        self.reads = FakeReads([make() for make in SITES], invoice_reads=[invoice()])
        self.accounts = FakeAccounts()
        self.clock = ManualClock(NOW)
        self.app = build_app(Console(self.reads, self.accounts, LiveHub(), self.clock, UsdPerPetahashDay(50)))
        self.client = Client(self.app, base_url)

    def login(self, password=PASSWORD, email=EMAIL):
        return self.post("/login", "/login", email=email, password=password)

    def post(self, form_path, action, **fields):
        token = re.search(r'name="csrf" value="([^"]+)"', self.client.get(form_path).text)[1]
        return self.client.post(action, data={"csrf": token, **fields})


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def inside(bench):
    assert bench.login().status_code == 303
    return bench


def routes(app):
    """Every address the application serves, included routers too."""
    found = []
    waiting = list(app.router.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, Route | Mount):
            found.append(route)
        else:
            waiting += route.original_router.routes
    return found


def test_every_route_needs_somebody_signed_in(bench):
    known = routes(bench.app)
    assert len(known) > 20
    for route in known:
        if route.path in OPEN_PATHS:
            continue
        assert isinstance(route, Route), f"{route.path}: a mount that nobody guards"
        path = re.sub(r"\{[a-z_]+\}", "pecos-1", route.path)
        for method in route.methods - {"HEAD"}:
            answer = bench.client.request(method, path)
            machine = path.startswith(("/api/", "/live/"))
            expected = (401, None) if machine else (303, "/login")
            assert (answer.status_code, answer.headers.get("location")) == expected, f"{method} {path}"


def test_open_paths_exist_and_show_nothing(bench):
    for path in OPEN_PATHS:
        assert "Pecos" not in bench.client.get(path).text
    assert {route.path for route in routes(bench.app)} >= OPEN_PATHS


PAGES = [
    "/", "/sites/pecos-1", "/sites/pecos-2", "/sites/odessa", "/sites/new-site", "/sites/inner-mongolia",
    "/sites/pecos-2?window=24h", "/sites/pecos-2/plan", "/sites/new-site/plan", "/sites/odessa/plan?window=15m",
    "/sites/pecos-2/miners", "/sites/pecos-2/miners?show=liars", "/sites/inner-mongolia/miners?page=50",
    "/sites/new-site/miners?show=off", "/sites/pecos-2/miners/02:00:00:00:00:14", "/sites/pecos-1/miners/02:00:00:00:00:07",
    "/invoices", "/invoices/inv-1", "/account", "/password",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_pages_answer(inside, path):
    answer = inside.client.get(path)
    assert answer.status_code == 200
    assert "<h1>" in answer.text
    assert "None" not in re.sub(r"<[^>]*>", "", answer.text.split("<main")[1].split("<script")[0]).replace(
        "None yet", ""
    )
    assert "hx-nonce" in answer.text or "data-stream" not in answer.text


def test_every_answer_carries_the_headers_and_its_own_nonce(inside):
    nonces = set()
    for path in ("/", "/login", "/healthz", "/nothing", "/api/v1/overview", "/sites/nope", "/static/nothing.js"):
        headers = inside.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        nonces.add(re.search(r"'nonce-([^']+)'", policy)[1])
    assert len(nonces) == 7


def test_unexpected_errors_carry_the_headers_and_show_no_inside(inside, caplog):
    inside.reads.fleet = lambda principal: 1 / 0
    answer = inside.client.get("/")
    assert answer.status_code == 500
    assert "content-security-policy" in answer.headers
    assert "division" not in answer.text and "Sites keep following the plan they hold." in answer.text
    quote = re.search(r"To quote: <code>([0-9a-f]+)</code>", answer.text)[1]
    assert quote in caplog.text and "division" in caplog.text


def test_pages_are_not_kept_by_caches(inside):
    assert inside.client.get("/").headers["cache-control"] == "no-store"


def test_login_gives_an_opaque_httponly_cookie(bench):
    answer = bench.login()
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("ballast="))
    assert f"max-age={SESSION_LENGTH.total_seconds():.0f};" in f"{cookie.lower()};", "as long as the session may last"
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert answer.headers["location"] == "/"


def test_over_https_the_cookie_is_a_host_cookie():
    bench = Bench("https://ballast.example")
    cookie = next(v for v in bench.login().headers.get_list("set-cookie") if "Host-" in v)
    assert cookie.startswith("__Host-ballast=") and "Secure" in cookie and "Domain" not in cookie
    assert bench.client.get("/").status_code == 200
    assert "max-age" in bench.client.get("/").headers["strict-transport-security"]


def test_unknown_account_and_wrong_password_get_the_same_answer(bench):
    wrong = bench.login(password="not the password")
    unknown = bench.login(email="nobody@ballast.local", password="not the password")
    shown = [re.sub(r'nonce(=|-)["\']?[\w-]+|value="[^"]*"', "", answer.text) for answer in (wrong, unknown)]
    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert shown[0] == shown[1]


def test_guesses_are_limited_and_the_limit_ends(bench):
    for _ in range(8):
        assert bench.login(password="wrong").status_code == 401
    blocked = bench.login()
    assert blocked.status_code == 429 and "Try again in" in blocked.text
    bench.clock.advance(301)
    assert bench.login().status_code == 303


def test_a_login_form_without_its_token_is_refused(bench):
    bench.client.get("/login")
    assert bench.client.post("/login", data={"email": EMAIL, "password": PASSWORD}).status_code == 403
    assert bench.accounts.sessions == {}


def test_a_form_from_another_site_is_refused(inside):
    answer = inside.client.post("/logout", headers={"origin": "https://elsewhere.example"})
    assert answer.status_code == 403
    assert inside.client.get("/").status_code == 200
    assert inside.client.post("/logout", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_a_form_without_the_sessions_token_changes_nothing(inside):
    assert inside.client.post("/logout", data={"csrf": "0" * 64}).status_code == 422
    assert inside.client.get("/").status_code == 200


def test_signing_out_ends_the_session(inside):
    assert inside.post("/account", "/logout").headers["location"] == "/login"
    assert inside.accounts.sessions == {}
    assert inside.client.get("/").status_code == 303


def test_the_one_time_password_opens_nothing_but_its_change(bench):
    bench.accounts.must_change = True
    bench.login()
    for path in ("/", "/sites/pecos-1", "/invoices", "/account"):
        assert bench.client.get(path).headers["location"] == "/password"
    for path in ("/api/v1/overview", "/live/overview"):
        assert bench.client.get(path).status_code == 403
    refused = bench.post("/password", "/password", old=PASSWORD, new="short", again="short")
    assert refused.status_code == 422 and "at least 12" in refused.text
    wrong = bench.post("/password", "/password", old="guess", new="x" * 14, again="x" * 14)
    assert wrong.status_code == 422 and "present password is not right" in wrong.text
    differ = bench.post("/password", "/password", old=PASSWORD, new="x" * 14, again="y" * 14)
    assert differ.status_code == 422 and "differ" in differ.text
    assert bench.post("/password", "/password", old=PASSWORD, new="x" * 14, again="x" * 14).status_code == 303
    assert bench.client.get("/").status_code == 200


def test_problems_say_fact_consequence_next_step_and_an_id(inside):
    answer = inside.client.get("/api/v1/sites/nope")
    assert answer.status_code == 404
    assert set(answer.json()) == {"code", "fact", "consequence", "next_step", "id"}
    page = inside.client.get("/sites/nope")
    assert page.status_code == 404 and "To quote" in page.text


def test_a_wrong_window_is_refused_in_words(inside):
    answer = inside.client.get("/sites/pecos-1?window=9y")
    assert answer.status_code == 422 and "wrong value" in answer.text


def test_a_lost_database_says_that_sites_keep_their_plan(inside):
    inside.reads.down = True
    answer = inside.client.get("/")
    assert answer.status_code == 503 and "Sites keep following the plan they hold." in answer.text
    assert inside.client.get("/readyz").status_code == 503
    assert inside.client.get("/healthz").status_code == 200


def test_sites_out_of_scope_look_like_none(bench):
    bench.accounts.principal = Principal(TENANT, "account:2", Role.HOST, frozenset({"pecos-1"}))
    bench.login()
    assert bench.client.get("/sites/pecos-1").status_code == 200
    assert bench.client.get("/sites/pecos-2").status_code == 403
    assert bench.client.get("/invoices").status_code == 403


def test_json_has_the_pages_own_figures(inside):
    document = inside.client.get("/api/v1/sites/pecos-2").json()
    page = inside.client.get("/sites/pecos-2").text
    for tile in document["tiles"]:
        assert f'<span class="num">{tile["value"]}</span>' in page
    miners = document["miners"]
    assert miners["total"] == sum(
        miners[name] for name in ("running", "stopped_by_plan", "should_be_off", "should_run", "unknown")
    )
    assert f"{miners['running']} running" in page
    plan = inside.client.get("/api/v1/sites/pecos-2/plan").json()
    assert plan["revision"] == 7 and plan["verifications"][0]["liars"]
    assert inside.client.get("/api/v1/sites/pecos-2/miners/02:00:00:00:00:14").json()["miner"]["liar"] is True
    assert len(inside.client.get("/api/v1/overview").json()["sites"]) == len(SITES)
    assert inside.client.get("/api/v1/invoices").json()["invoices"][0]["total"]["amount"] == "41234.56"
    assert inside.client.get("/api/v1/invoices/inv-1").json()["agrees"] is True


def test_the_racks_layout_is_kept_by_its_digest(inside):
    first = inside.client.get("/api/v1/sites/pecos-1/racks/unknown")
    digest = first.json()["layout"]
    assert first.headers["cache-control"] == "no-store"
    kept = inside.client.get(f"/api/v1/sites/pecos-1/racks/{digest}")
    assert "immutable" in kept.headers["cache-control"] and len(kept.json()["miner_ids"]) == 250


def test_names_of_sites_are_escaped(inside):
    inside.reads.cases[0].name = "<script>alert(1)</script>"
    for path in ("/", "/sites/pecos-1", "/sites/pecos-1/plan"):
        assert "<script>alert" not in inside.client.get(path).text


def test_a_token_in_letters_that_no_token_has_is_only_a_wrong_one(bench, caplog):
    bench.client.get("/login")
    form = {"email": EMAIL, "password": PASSWORD, "csrf": "é"}
    assert bench.client.post("/login", data=form).status_code == 403
    bench.login()
    assert bench.client.post("/logout", data={"csrf": "é"}).status_code == 422
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["/sites/a%00b", "/sites/pecos-1/miners/x%00y", "/live/sites/a%00b", "/static/a%00b"])
def test_nothing_has_a_name_with_nul_in_it(inside, path):
    answer = inside.client.get(path)
    assert answer.status_code == 404
    assert "content-security-policy" in answer.headers


def test_an_email_with_nul_in_it_is_nobodys(bench):
    seen = []
    bench.accounts.sign_in = lambda email, password: seen.append(email)
    assert bench.login(email="a\0b@ballast.local").status_code == 401
    assert seen == ["a\ufffdb@ballast.local"]


@pytest.mark.parametrize("path", ["sites/nope", "sites/nope/plan", "sites/nope/miners/x", "sites/pecos-1/miners/nope"])
def test_what_does_not_exist_is_not_streamed(inside, path):
    assert inside.client.get(f"/live/{path}").status_code == 404


def test_what_is_out_of_scope_is_not_streamed(bench):
    bench.accounts.principal = Principal(TENANT, "account:2", Role.HOST, frozenset({"pecos-1"}))
    bench.login()
    assert bench.client.get("/live/sites/pecos-2").status_code == 403
