"""The periodic jobs: telemetry sweep, curtailment, market. One lease each a tenant, fenced.

Invariants:

* A job runs in at most one replica at a time, which keeps its lease as long as it gets on with the work; whoever loses
  the lease writes nothing more and ends its round (``LeaseLost``).
* A failure is logged once an outage and does not stop the job or its neighbours; nor does one broken site the rest.
* ``stop`` ends every job within its current step, and gives the leases back.

      thread a job:  for each tenant: acquire or renew lease -> work(principal, fence) -> wait interval
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID, uuid4

import httpx

from cloud.analytics import service as analytics
from cloud.analytics.market import HttpFeed
from cloud.core.access import Principal, system_principal
from cloud.core.errors import CloudError, LeaseLost
from cloud.flows.curtailment import replan_site, verify_site
from cloud.flows.sweep import Sweep
from cloud.hosting import queries as hosting
from cloud.infra.db import Database
from cloud.infra.leases import Fence, Lease, Leases
from cloud.infra.outage import OutageLog
from cloud.planner.service import policy
from cloud.planner.verify_service import verify_policy
from cloud.settings import Settings

_LOGGER: Final = logging.getLogger(__name__)
_SHORTEST_LEASE_S: Final = 10.0


class Work(Protocol):
    """What a job does for one tenant; ``fence`` goes into every writing transaction."""

    def __call__(self, principal: Principal, fence: Fence) -> None:
        """Do it once."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One periodic job. ``step_s`` is the longest its work takes from one fence to the next."""

    name: str
    interval_s: float
    work: Work
    step_s: float = 0

    @property
    def lease_s(self) -> float:
        """Return how long a lease lasts: past the pause between two rounds, and past any one step."""
        return max(_SHORTEST_LEASE_S, 1.5 * self.interval_s, 2 * self.step_s)


class Runner:
    """Runs one job for every tenant under its lease, until told to stop."""

    def __init__(self, database: Database, job: Job, holder: str) -> None:
        self._database = database
        self._job = job
        self._holder = holder
        self._outage = OutageLog(_LOGGER, f"job {job.name}")
        self._held: dict[UUID, Lease] = {}

    def run(self, stop: threading.Event) -> None:
        """Repeat until ``stop``."""
        try:
            while not stop.is_set():
                self.once(stop)
                stop.wait(self._job.interval_s)
        finally:
            self._release()

    def once(self, stop: threading.Event) -> None:
        """Run the job now for every tenant whose lease this replica has or gets."""
        try:
            for tenant_id in self._database.tenant_ids():
                if stop.is_set():
                    return
                self._tenant(tenant_id)
            self._outage.recovered()
        except CloudError as error:
            self._outage.failed(error)
        except Exception as error:  # a task supervisor: a defect is logged with its trace and the job goes on
            if not self._outage.failing:
                _LOGGER.exception("job %s has a defect", self._job.name)
            self._outage.failed(error)

    def _tenant(self, tenant_id: UUID) -> None:
        principal = system_principal(tenant_id, f"job:{self._job.name}")
        leases = Leases(self._database, principal, self._holder)
        lease = self._held.pop(tenant_id, None)
        if lease is None or not leases.renew(lease):
            lease = leases.acquire(self._job.name, self._job.lease_s)
        if lease is None:
            return
        held = lease
        self._held[tenant_id] = held
        try:
            self._job.work(principal, lambda uow: leases.require(uow, held))
        except LeaseLost as lost:
            del self._held[tenant_id]
            _LOGGER.warning("job %s: %s; that replica goes on", self._job.name, lost)

    def _release(self) -> None:
        for tenant_id, lease in self._held.items():
            principal = system_principal(tenant_id, f"job:{self._job.name}")
            try:
                Leases(self._database, principal, self._holder).release(lease)
            except CloudError as error:
                _LOGGER.info("lease %s was not given back and runs out by itself: %s", lease.name, error)


def sweep_job(database: Database, settings: Settings) -> Job:
    """Return the sweep of links and silent miners."""
    sweeps: dict[UUID, Sweep] = {}

    def work(principal: Principal, fence: Fence) -> None:
        sweeps.setdefault(principal.tenant_id, Sweep()).run(database, principal, fence)

    return Job("telemetry_sweep", settings.sweep_interval_s, work)


def curtailment_job(database: Database, settings: Settings) -> Job:
    """Return the job that plans every site again and weighs what is over; sites fail one by one."""
    plan_policy, check_policy = policy(settings), verify_policy(settings)
    outages: dict[tuple[UUID, str], OutageLog] = {}

    def work(principal: Principal, fence: Fence) -> None:
        with database.unit_of_work(principal) as uow:
            site_ids = hosting.site_ids(uow)
        for site_id in site_ids:
            key = (principal.tenant_id, site_id)
            with _guarded(outages.setdefault(key, OutageLog(_LOGGER, f"planning of site {site_id}"))):
                replan_site(database, principal, site_id, plan_policy, fence)
                verify_site(database, principal, site_id, check_policy, fence)

    return Job("curtailment", settings.curtailment_interval_s, work, step_s=settings.solver_limit_s)


def market_job(database: Database, settings: Settings, feed: HttpFeed) -> Job:
    """Return the job that reads the market feed."""

    def work(principal: Principal, fence: Fence) -> None:
        publication = feed.fetch()
        with database.unit_of_work(principal) as uow:
            fence(uow)
            analytics.collect(uow, publication)

    return Job("market", settings.market_interval_s, work)


@contextmanager
def _guarded(outage: OutageLog) -> Iterator[None]:
    """Log a failure once an outage and go on with the next site; a lost lease is passed on."""
    try:
        yield
    except LeaseLost:
        raise
    except CloudError as error:
        outage.failed(error)
    except Exception as error:  # a task supervisor: one site's defect must not stop the others' curtailments
        if not outage.failing:
            _LOGGER.exception("a site's planning has a defect")
        outage.failed(error)
    else:
        outage.recovered()


def run_worker(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Run every job until ``stop``; returns when all have ended and the leases are given back."""
    holder = f"worker-{uuid4().hex[:12]}"
    with httpx.Client(follow_redirects=True) as client:
        jobs = [sweep_job(database, settings), curtailment_job(database, settings)]
        if settings.market_url is not None:
            feed = HttpFeed(settings.market_url, settings.market, database.clock, stop.wait, client)
            jobs.append(market_job(database, settings, feed))
        threads = [_thread(Runner(database, job, holder), job.name, stop) for job in jobs]
        for thread in threads:
            thread.join()


def _thread(runner: Runner, name: str, stop: threading.Event) -> threading.Thread:
    work: Callable[[threading.Event], None] = runner.run
    thread = threading.Thread(target=work, args=(stop,), name=f"job-{name}", daemon=True)
    thread.start()
    return thread
