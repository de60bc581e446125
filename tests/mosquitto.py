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

    def __init__(self, folder: Path, more: str = "", *, stolen: bool = False, port: int | None = None) -> None:
        """`stolen`: somebody else holds it, who sees and says everything on `thiefs_port`."""
        self.folder = folder
        self.port, self.thiefs_port = port or free_port(), free_port()
        text = (SHIPPED / "mosquitto.conf").read_text().replace("/etc/mosquitto/ballast", str(folder))
        text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        rules = (SHIPPED / "acl").read_text()
        if stolen:
            text = text.replace("allow_anonymous false", "allow_anonymous true")
            more += f"\nlistener {self.thiefs_port} 127.0.0.1\n"
            rules = f"topic readwrite #\n{rules}"
        (folder / "mosquitto.conf").write_text(f"{text}\n{more}\n")
        (folder / "acl").write_text(rules)
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def mosquitto(authority: Authority, more: str = "") -> Iterator[Mosquitto]:
    """A running broker whose clients need certificates of ``authority``."""
    leaf = authority.leaf(BROKER_NAME)
    with broker_of(authority.pem, authority.revocations(), leaf.certificate, leaf.key, more) as broker:
        yield broker


@contextmanager
def broker_of(
    ca_pem: bytes, crl_pem: bytes, certificate_pem: bytes, key_pem: bytes, more: str = "", *, stolen: bool = False
) -> Iterator[Mosquitto]:
    """A running broker with this certificate, whose clients need one of the same CA."""
    with tempfile.TemporaryDirectory(prefix="ballast-broker-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "ca.crt").write_bytes(ca_pem)
        (folder / "agents.crl").write_bytes(crl_pem)
        (folder / "broker.crt").write_bytes(certificate_pem)
        (folder / "broker.key").write_bytes(key_pem)
        broker = Mosquitto(folder, more, stolen=stolen)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()
