"""A real mosquitto for tests, with the configuration that deploy/ ships: a private port, a folder of its own.

It is a Debian package (scripts/system_packages.sh); where it is missing the tests that need it fail.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.contract.pki import Authority

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED = REPOSITORY / "deploy/cloud/mosquitto"
BROKER_NAME = "ballast-broker"
CLOUD_NAME = "ballast-cloud"
_ACCOUNT = "mosquitto"
_STARTS_WITHIN_S = 20.0


def program() -> str:
    """Where mosquitto is."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("mosquitto is missing; run scripts/system_packages.sh as root")
    return found


class Mosquitto:
    """One broker; ``stop`` and ``start`` keep its port."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        text = (SHIPPED / "mosquitto.conf").read_text().replace("/etc/mosquitto/ballast", str(folder))
        text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        (folder / "mosquitto.conf").write_text(f"{text}\n{more}\n")
        shutil.copy(SHIPPED / "acl", folder / "acl")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._hand_over()
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [program(), "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(20)
            self._process = None

    def reload(self) -> None:
        self._hand_over()
        assert self._process is not None
        self._process.send_signal(1)  # SIGHUP

    def _hand_over(self) -> None:
        """Root's broker becomes its own account, which must be able to read its folder."""
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, _ACCOUNT)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def mosquitto(authority: Authority, more: str = "") -> Iterator[Mosquitto]:
    """A running broker whose clients need certificates of ``authority``."""
    with tempfile.TemporaryDirectory(prefix="ballast-broker-", dir="/tmp") as name:
        folder = Path(name)
        leaf = authority.leaf(BROKER_NAME)
        (folder / "ca.crt").write_bytes(authority.pem)
        (folder / "broker.crt").write_bytes(leaf.certificate)
        (folder / "broker.key").write_bytes(leaf.key)
        broker = Mosquitto(folder, more)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()
