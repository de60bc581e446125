from pathlib import Path

import pytest

from cloud.core.errors import BadInput
from cloud.hosting.inventory import METER_FIELDS, MINER_FIELDS, read_meters, read_miners

HEADER = ",".join(MINER_FIELDS)
GOOD = "aa:bb:cc:00:00:01,127.20.0.1,4028,luxos,S19j Pro,F1,C1-R2,3,3068,104"


def write(tmp_path: Path, *lines: str, name: str = "inventory.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_reads_miners_without_their_addresses(tmp_path: Path) -> None:
    (miner,) = read_miners(write(tmp_path, HEADER, GOOD))
    assert (miner.miner_id, miner.controllable, miner.position, miner.nameplate_w) == (
        "aa:bb:cc:00:00:01",
        True,
        3,
        3068,
    )
    assert not hasattr(miner, "host")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((HEADER, GOOD.replace("luxos", "linux")), "inventory.csv line 2: dialect: 'linux' is unknown; write one of"),
        ((HEADER, GOOD, GOOD), "inventory.csv line 3: miner_id: .* stands twice"),
        ((HEADER, GOOD.replace(",3,", ",x,")), "line 2: position: 'x' is not a whole number"),
        ((HEADER, GOOD.replace("3068", "nan")), "line 2: nameplate_w: 'nan' is not a number"),
        ((HEADER, GOOD + ",more"), "line 2: 11 fields; write 10"),
        ((HEADER, GOOD.replace("aa:bb:cc:00:00:01", "")), "line 2: miner_id: '' is empty"),
        ((HEADER,), "no miners"),
        (("a,b", GOOD), "line 1: the header is 'a,b'; write miner_id,"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_miners(write(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_miners(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_miners(tmp_path / "latin.csv")


def test_reads_meters(tmp_path: Path) -> None:
    header = ",".join(METER_FIELDS)
    path = write(
        tmp_path, header, "site,site,,modbus://127.0.0.1:1502/1?register=0", "f1,feeder,F1,x", name="meters.csv"
    )
    assert [(meter.meter_id, meter.kind.value, meter.feeder_id) for meter in read_meters(path)] == [
        ("site", "site", ""),
        ("f1", "feeder", "F1"),
    ]
    with pytest.raises(BadInput, match="line 2: feeder_id: empty"):
        read_meters(write(tmp_path, header, "f1,feeder,,x", name="meters.csv"))
