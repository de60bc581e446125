"""The demo's bill: one energy invoice a site, then recomputed by the customer's own verifier in another process."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from cloud.billing import queries
from cloud.billing import service as billing
from cloud.billing.model import BillingPolicy
from cloud.cli.demo.stage import BILLING_INTERVAL_S, SiteStage
from cloud.cli.demo.watch import Watch
from cloud.infra.db import UnitOfWork
from sitelink.types import Interval

_POLICY: Final = BillingPolicy(timedelta(seconds=BILLING_INTERVAL_S), timedelta(seconds=3 * BILLING_INTERVAL_S))


@dataclass(frozen=True, slots=True)
class Priced:
    """What the invoices come to, and whether the verifier found the same to the cent."""

    total_cents: int
    agree: bool
    detail: str


def price(watch: Watch, sites: Sequence[SiteStage], since: datetime, until: datetime) -> Priced:
    """Issue an energy invoice a site for ``[since, until)`` and have each recomputed from its exported evidence.

    Raises:
        CloudError: a site cannot be billed; the message says why.
    """
    period = Interval(since.replace(microsecond=0) + timedelta(seconds=1), until.replace(microsecond=0))
    cents, energy, said, agree = 0, 0.0, "", True
    for site in sites:
        invoice_id = watch.write(lambda uow, site=site: _issue(uow, site, period))  # type: ignore[misc]
        view = watch.write(lambda uow, number=invoice_id: queries.invoice(uow, number))  # type: ignore[misc]
        cents += int(view.invoice.total.amount * 100)
        energy += float(sum(line.quantity for line in view.lines))
        bundle = site.folder / "invoice.json"
        bundle.write_bytes(watch.write(lambda uow, number=invoice_id: billing.export(uow, number)))  # type: ignore[misc]
        said, held = _recompute(bundle)
        agree = agree and held
    invoices = f"{len(sites)} invoices over {energy:.2f} kWh: {cents / 100:.2f} USD"
    return Priced(cents, agree, f"{invoices}; the verifier says: {said}")


def _issue(uow: UnitOfWork, site: SiteStage, period: Interval) -> UUID:
    return billing.issue_energy_invoice(uow, site.site_id, period, _POLICY)


def _recompute(bundle: Path) -> tuple[str, bool]:
    done = subprocess.run(  # noqa: S603 - our own verifier on our own file
        [sys.executable, "-m", "verifier", str(bundle)], capture_output=True, text=True, check=False, timeout=30
    )
    lines = (done.stdout or done.stderr).strip().splitlines() or ["nothing"]
    return lines[-1], done.returncode == 0
