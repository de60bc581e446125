"""What an operator types: one line and a non-zero exit for what cannot be meant, and nothing of it is kept."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cloud.cli import invoice, main, plan, signal, site
from cloud.core.access import Principal
from cloud.hosting import service
from cloud.infra.db import Database
from cloud.planner import queries
from cloud.settings import Settings
from sitelink.codec import pack
from sitelink.types import BatchBody, Gap
from tests.integration.brain import SETTINGS, SITE, Field, open_field
from tests.telemetry import make_batch

pytestmark = pytest.mark.postgres
WINDOW = ("--from", "2026-03-01T13:00:00Z", "--to", "2026-03-01T14:00:00Z")


@pytest.fixture
def field(database: Database, principal: Principal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Field:
    @contextmanager
    def opened(_: argparse.Namespace) -> Iterator[tuple[Database, Settings, Principal]]:
        yield database, SETTINGS, principal

    for module in (invoice, plan, signal, site):
        monkeypatch.setattr(module, "open_database", opened)
    return open_field(database, principal, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["signal", "add", "nowhere", *WINDOW, "--cap-mw", "1"],
        ["signal", "list", "nowhere"],
        ["plan", "show", "nowhere"],
        ["plan", "verdicts", "nowhere"],
        ["invoice", "contract", "nowhere", "--rate", "0.07"],
        ["invoice", "list", "nowhere"],
        ["site", "token", "nowhere"],
        ["site", "gaps", "nowhere"],
    ],
)
def test_a_site_that_does_not_exist_is_one_line_and_exit_1(
    field: Field, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert field.miners
    assert main.run(arguments) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "ballast: there is no site nowhere; ballast site list shows them\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["signal", "add", SITE, *WINDOW, "--cap-mw", "nan"],
        ["signal", "add", SITE, *WINDOW, "--cap-mw", "inf"],
        ["signal", "add", SITE, *WINDOW, "--cap-mw", "-1"],
        ["signal", "add", SITE, "--from", "0001-01-01T00:00:00+14:00", *WINDOW[2:], "--cap-mw", "1"],
        ["signal", "add", SITE, *WINDOW[:2], "--to", "9999-12-31T23:59:59-14:00", "--cap-mw", "1"],
        ["invoice", "contract", SITE, "--rate", "0.07", "--from", "0001-01-01T00:00:00+14:00"],
        ["invoice", "issue", SITE, "--from", "0001-01-01T00:00:00+14:00", *WINDOW[2:]],
    ],
)
def test_what_no_planner_or_calendar_can_calculate_with_is_one_line_and_exit_2(
    field: Field, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    with field.database.unit_of_work(field.principal) as uow:
        assert queries.signals(uow, SITE) == ()


def test_what_a_site_left_out_is_shown(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["site", "gaps", SITE]) == 0
    assert capsys.readouterr().out == f"site {SITE} left nothing out\n"
    at = field.clock.now()
    with field.database.unit_of_work(field.principal) as uow:
        batch = make_batch(0, site_id=SITE, epoch="gaps")
        gap = Gap(at, at + timedelta(minutes=15), 900, 30)
        service.ingest(uow, replace(batch, count=30, payload=pack(BatchBody(gaps=(gap,)))))
    assert main.run(["site", "gaps", SITE]) == 0
    assert capsys.readouterr().out.startswith("30 items in 1 gaps, one in 900 s kept: ")
