"""Inventories in a real database, beyond what one statement can bind one by one."""

from pathlib import Path

import pytest

from cloud.core.access import Principal
from cloud.hosting import service
from cloud.hosting.model import ImportReport
from cloud.infra.db import Database
from sitelink.inventory import MINER_FIELDS
from tests.integration.brain import SITE, open_field

pytestmark = pytest.mark.postgres
MORE_THAN_A_STATEMENT_BINDS = 65_600


def test_an_inventory_may_have_more_miners_than_a_statement_has_parameters(
    database: Database, principal: Principal, tmp_path: Path
) -> None:
    field = open_field(database, principal, tmp_path)
    inventory = tmp_path / "large.csv"
    rows = [
        f"m{n},10.{n >> 16}.{n >> 8 & 255}.{n & 255},4028,luxos,S21,F0,R,{n},3500,200"
        for n in range(1, MORE_THAN_A_STATEMENT_BINDS + 1)
    ]
    inventory.write_text("\n".join([",".join(MINER_FIELDS), *rows]) + "\n")
    with database.unit_of_work(principal) as uow:
        report = service.import_inventory(uow, SITE, inventory, None)
    assert report == ImportReport(MORE_THAN_A_STATEMENT_BINDS, MORE_THAN_A_STATEMENT_BINDS, 0, len(field.miners), 0)
