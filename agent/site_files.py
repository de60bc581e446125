"""What lies in the state folder beside the database: firmware images put there by hand, and logs fetched from miners.

    STATE/firmware/FILE                      STATE/logs/miners/MINER/COMMAND.log

Invariants: an image is used only when its bytes are the ones that were ordered; nothing outside these two folders is
read or written, whatever a command names; logs stay at the site; no disk holds up the event loop.
"""

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Final

from agent.aside import on_disk
from agent.errors import Refused, Transient
from agent.files import replace_file

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_LARGEST_IMAGE: Final = 512 * 1024 * 1024
_PRIVATE_FOLDER: Final = 0o700


class SiteFiles:
    """The files of one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._images = state_dir / "firmware"
        self._logs = state_dir / "logs" / "miners"

    async def image(self, file: str, sha256: str) -> bytes:
        """Return the firmware image called ``file``.

        Raises:
            Refused: with code image_missing or image_wrong; the message says what to do.
        """
        return await on_disk(partial(self._read, file, sha256))

    async def keep_logs(self, miner_id: str, command_id: str, content: bytes) -> Path:
        """Keep ``content`` as the logs that ``command_id`` fetched from ``miner_id`` and return where.

        Raises:
            Transient: the disk takes nothing.
        """
        return await on_disk(partial(self._keep, miner_id, command_id, content))

    def _read(self, file: str, sha256: str) -> bytes:
        path = self._images / file
        try:
            if not _NAME.fullmatch(file) or path.stat().st_size > _LARGEST_IMAGE:
                raise Refused("image_missing", f"{file!r} is no firmware image; put one into {self._images}")
            content = path.read_bytes()
        except OSError as error:
            raise Refused("image_missing", f"{path}: {error.strerror}; put the image there first") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Refused("image_wrong", f"{path}: its SHA-256 is not the one ordered; put the right image there")
        return content

    def _keep(self, miner_id: str, command_id: str, content: bytes) -> Path:
        folder = self._logs / _plain(miner_id)
        path = folder / f"{_plain(command_id)}.log"
        try:
            folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise Transient(f"{path}: cannot be written: {error.strerror}; free some disk") from None
        return path


def _plain(name: str) -> str:
    """Return ``name`` as part of a path that leads nowhere else."""
    return re.sub(r"[^A-Za-z0-9-]", "-", name)[:100] or "-"
