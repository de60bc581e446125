"""Images are used only when they are the ones ordered; nothing outside the two folders is touched."""

import hashlib
from pathlib import Path

import pytest

from agent.errors import Refused, Transient
from agent.site_files import SiteFiles

pytestmark = pytest.mark.agent


async def test_an_image_is_the_one_that_was_ordered(tmp_path: Path) -> None:
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "fw-2.bin").write_bytes(b"image")
    files = SiteFiles(tmp_path)
    assert await files.image("fw-2.bin", hashlib.sha256(b"image").hexdigest()) == b"image"
    with pytest.raises(Refused) as caught:
        await files.image("fw-2.bin", "0" * 64)
    assert caught.value.code == "image_wrong"


@pytest.mark.parametrize("name", ["none.bin", "../secret", "/etc/passwd", "", ".", "a/b", "x" * 200])
async def test_what_is_no_image_of_this_folder_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "firmware").mkdir()
    with pytest.raises(Refused) as caught:
        await SiteFiles(tmp_path).image(name, hashlib.sha256(b"x").hexdigest())
    assert caught.value.code == "image_missing"


async def test_logs_stay_in_their_folder_whatever_a_miner_is_called(tmp_path: Path) -> None:
    path = await SiteFiles(tmp_path).keep_logs("../../02:00:00", "../cmd/1", b"line")
    assert path.parent.parent == tmp_path / "logs" / "miners"
    assert path.read_bytes() == b"line"
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_takes_nothing_is_transient(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(Transient, match="free some disk"):
        await SiteFiles(tmp_path).keep_logs("m", "c", b"x")
