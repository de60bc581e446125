"""From a visitor's request to a screen: permission, one read, one view model. Shared by pages, streams and JSON.

Invariant: the same screen stands behind the page, the live stream and the JSON of one address.
"""

from dataclasses import dataclass

from cloud.api.live import LiveHub
from cloud.api.source import Accounts, ConsoleReads, InvoiceRead, InvoicesRead, SiteRead
from cloud.api.views.fleet import FleetScreen, build_fleet
from cloud.api.views.miner import MinerScreen, build_miner
from cloud.api.views.plan import PlanScreen, build_plan
from cloud.api.views.site import LONGEST, WINDOWS, SiteScreen, build_site
from cloud.core.access import Permission, Principal
from sitelink.clock import Clock
from sitelink.units import UsdPerPetahashDay


@dataclass(frozen=True, slots=True)
class Console:
    """What the HTTP side works with; made once by ``create_http_app``."""

    reads: ConsoleReads
    accounts: Accounts
    hub: LiveHub
    clock: Clock
    hashprice: UsdPerPetahashDay

    def fleet(self, principal: Principal) -> FleetScreen:
        """Return the overview."""
        principal.require(Permission.READ_FLEET)
        return build_fleet(self.reads.fleet(principal))

    def site(self, principal: Principal, site_id: str, window: str | None) -> SiteScreen:
        """Return the site page."""
        return build_site(self.site_read(principal, site_id, window), window, self.hashprice)

    def plan(self, principal: Principal, site_id: str, window: str | None) -> PlanScreen:
        """Return the plan page."""
        return build_plan(self.site_read(principal, site_id, window or "24h"), window)

    def site_read(self, principal: Principal, site_id: str, window: str | None) -> SiteRead:
        """Return one read of a site, with its meter series as long as ``window``."""
        principal.require(Permission.READ_FLEET, site_id)
        return self.reads.site(principal, site_id, WINDOWS[window] if window else LONGEST)

    def miner(self, principal: Principal, site_id: str, miner_id: str, window: str | None) -> MinerScreen:
        """Return the miner page."""
        principal.require(Permission.READ_FLEET, site_id)
        back = WINDOWS[window] if window else LONGEST
        return build_miner(self.reads.miner(principal, site_id, miner_id, back), window)

    def invoices(self, principal: Principal) -> InvoicesRead:
        """Return the list of invoices."""
        principal.require(Permission.READ_BILLING)
        return self.reads.invoices(principal)

    def invoice(self, principal: Principal, invoice_id: str) -> InvoiceRead:
        """Return one invoice."""
        principal.require(Permission.READ_BILLING)
        return self.reads.invoice(principal, invoice_id)
