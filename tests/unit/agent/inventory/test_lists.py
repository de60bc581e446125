"""The site's lists come from files, and every refusal is the operator's to mend."""

from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.inventory import load_inventory, load_meters

pytestmark = pytest.mark.agent

HEADER = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"


def test_both_lists_are_read_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "inventory.csv").write_text(f"{HEADER}\nSERIAL9,miner-2,4029,auto,,,,0,,\n", encoding="utf-8")
    (tmp_path / "meters.csv").write_text("meter_id,kind,feeder_id,url\nm,site,,modbus://h/1\n", encoding="utf-8")
    assert load_inventory(tmp_path / "inventory.csv")[0].port == 4029
    assert load_meters(tmp_path / "meters.csv")[0].meter_id == "m"


def test_a_missing_file_a_folder_and_a_broken_row_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.csv: cannot be read: No such file"):
        load_inventory(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        load_meters(tmp_path)
    (tmp_path / "x.csv").write_text(f"{HEADER}\nonly,two\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"x\.csv line 2: port: the row has 2 fields instead of 10"):
        load_inventory(tmp_path / "x.csv")
