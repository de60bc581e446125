"""A lease has one holder, and what an earlier holder still tries is fenced off."""

import pytest
from sqlalchemy import text

from cloud.core.access import Principal
from cloud.core.errors import LeaseLost
from cloud.infra.db import Database
from cloud.infra.leases import Leases
from tests.postgres import make_tenant


def expire(database: Database, principal: Principal) -> None:
    with database.unit_of_work(principal) as uow:
        uow.session.execute(text("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'"))


def test_one_holder_at_a_time(database: Database, principal: Principal) -> None:
    first, second = Leases(database, principal, "a"), Leases(database, principal, "b")
    lease = first.acquire("sweep", 30)
    assert lease is not None and lease.token == 1
    assert second.acquire("sweep", 30) is None and first.acquire("sweep", 30) is None
    assert second.acquire("market", 30) is not None
    first.release(lease)
    taken = second.acquire("sweep", 30)
    assert taken is not None and taken.token == 2
    assert not first.renew(lease) and second.renew(taken)


def test_the_earlier_holder_is_fenced_off(database: Database, principal: Principal) -> None:
    first, second = Leases(database, principal, "a"), Leases(database, principal, "b")
    old = first.acquire("sweep", 30)
    assert old is not None
    expire(database, principal)
    assert not first.renew(old)
    new = second.acquire("sweep", 30)
    assert new is not None and new.token == old.token + 1
    with pytest.raises(LeaseLost, match="another holder"), database.unit_of_work(principal) as uow:
        first.require(uow, old)
    with database.unit_of_work(principal) as uow:
        second.require(uow, new)
    first.release(old)
    assert second.renew(new), "releasing a lost lease does not take the new one away"


def test_work_that_gets_on_keeps_its_lease(database: Database, principal: Principal) -> None:
    first, second = Leases(database, principal, "a"), Leases(database, principal, "b")
    lease = first.acquire("sweep", 30)
    assert lease is not None
    expire(database, principal)
    with database.unit_of_work(principal) as uow:
        first.require(uow, lease)
    assert second.acquire("sweep", 30) is None


def test_tenants_have_their_own_leases(database: Database, principal: Principal) -> None:
    other = make_tenant(database)
    assert Leases(database, principal, "a").acquire("sweep", 30) is not None
    assert Leases(database, other, "b").acquire("sweep", 30) is not None
