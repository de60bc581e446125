"""Serves the console over the fakes, for looking at pages by hand: python -m tests.unit.console.serve_fakes PORT SET."""

import sys

import uvicorn

from cloud.api.http import build_app
from cloud.api.live import LiveHub
from cloud.api.screens import Console
from sitelink.clock import SystemClock
from sitelink.units import UsdPerPetahashDay
from tests.unit.console import fakes

SETS = {
    "empty": [],
    "normal": [fakes.normal_site, fakes.shedding_site, fakes.lost_site, fakes.never_site],
    "huge": [fakes.huge_site],
}


def main() -> None:
    """Serve until interrupted; the fakes' now is the moment this starts."""
    port, name = int(sys.argv[1]), sys.argv[2]
    fakes.NOW = SystemClock().now()
    cases = [make() for make in SETS[name]]
    reads = fakes.FakeReads(cases, invoice_reads=[fakes.invoice()] if cases else [])
    console = Console(reads, fakes.FakeAccounts(), LiveHub(), SystemClock(), UsdPerPetahashDay(50))
    uvicorn.run(build_app(console), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
