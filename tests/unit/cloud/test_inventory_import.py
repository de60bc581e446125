from pathlib import Path

import pytest

from cloud.core.errors import BadInput
from cloud.hosting.inventory import read_meters, read_miners
from sitelink.inventory import METER_FIELDS, MINER_FIELDS, OPTIONAL_MINER_FIELDS

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


def test_of_the_optional_columns_nothing_is_taken_either(tmp_path: Path) -> None:
    row = f"{GOOD},8080,hall-b,http://10.9.8.7/1?pdu=netio"
    miners = read_miners(write(tmp_path, ",".join((*MINER_FIELDS, *OPTIONAL_MINER_FIELDS)), row))
    assert not [word for word in ("127.20", "8080", "hall-b", "10.9.8.7", "netio") if word in repr(miners)]


def test_an_empty_nameplate_is_unknown_and_never_zero(tmp_path: Path) -> None:
    (miner,) = read_miners(write(tmp_path, HEADER, GOOD.replace(",3068,104", ",,")))
    assert (miner.nameplate_w, miner.nameplate_ths) == (None, None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((HEADER, GOOD.replace("luxos", "linux")), "inventory.csv line 2: dialect: 'linux' is not known; write one of"),
        ((HEADER, GOOD.replace(",104", ",0")), "nameplate_ths: 0 is out of range; .* leave it empty"),
        ((HEADER,), "no miners"),
    ],
)
def test_a_broken_list_is_refused_in_one_line(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
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
        tmp_path,
        header,
        "site,site,,modbus://127.0.0.1:1502/1?register=0",
        "f1,feeder,F1,modbus://h/1",
        name="meters.csv",
    )
    assert [(meter.meter_id, meter.kind.value, meter.feeder_id) for meter in read_meters(path)] == [
        ("site", "site", ""),
        ("f1", "feeder", "F1"),
    ]
    with pytest.raises(BadInput, match="line 2: feeder_id: it is empty"):
        read_meters(write(tmp_path, header, "f1,feeder,,modbus://h/1", name="meters.csv"))
