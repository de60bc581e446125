"""An embedded PostgreSQL under our own supervision.

Invariants:

* It listens on a unix socket only, in a folder of mode 0700, and believes the kernel about who connects (peer).
* It never runs as root: in a folder of root's own, root lends it an existing unprivileged account. A folder changes
  owner only when it is root's and holds no cluster; no parent folder's permissions change.
* One supervisor a folder (a lock, taken before anything is touched). It dies with its supervisor; an orphan or a stale
  pid file of a killed one is cleared away at the next start, and what was committed is still there.

      home/           ours             home/data/   the account's, 0700
      home/lock       the supervisor   home/run/    the account's, 0700: the socket
      home/pg_hba.conf, pg_ident.conf  who may be whom
"""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Final

import psycopg
from psycopg import sql

from cloud.core.errors import Permanent, Refused, Transient
from cloud.infra import folder as folders
from cloud.infra.postgres_binaries import Binaries, find_binaries
from cloud.infra.process import run_as, spawn, unprivileged_account
from cloud.models.tenancy import APP_ROLE, OWNER_ROLE

DATABASE: Final = "ballast"
_SUPERUSER: Final = "postgres"
_LONGEST_SOCKET_FOLDER: Final = 99 - len("/.s.PGSQL.5432")
_SHARED_HOME: Final = Path("/var/lib/ballast")
_READY_WITHIN_S: Final = 60.0
_OPTIONS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}


class EmbeddedPostgres:
    """One cluster in ``home``; ``durable=False`` survives killed processes but not a power cut, for tests."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        home = home.resolve()  # one name for it, whatever links lead there
        self.home = home
        self._account = unprivileged_account()
        self._durable = durable
        self._data = home / "data"
        self._socket_folder = self._choose_socket_folder()
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._binaries: Binaries | None = None

    @property
    def pid(self) -> int | None:
        """Return the postmaster's process id while it runs under this supervisor."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def url(self, role: str = APP_ROLE, database: str = DATABASE) -> str:
        """Return the SQLAlchemy address of ``database`` for ``role``."""
        return f"postgresql+psycopg://{role}@/{database}?host={self._socket_folder}&port=5432"

    def answers(self) -> bool:
        """Return whether a server accepts connections on the socket."""
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        """Make the cluster if there is none, start it and wait until it accepts connections.

        Raises:
            Refused: another supervisor holds the folder, it is somebody else's, or no PostgreSQL works here.
            Permanent: the server does not come up; the message quotes its log.
        """
        if self.alive():
            return
        if self._lock is None:
            self._lock = folders.hold(self.home)
        try:
            self._claim(self._data)
            self._claim(self._socket_folder)
            self._start()
        except BaseException:
            self.stop()
            raise

    def alive(self) -> bool:
        """Return whether the postmaster still runs."""
        return self.pid is not None

    def stop(self) -> None:
        """Stop the server (fast, then immediate) and let go of the folder."""
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def create_database(self, name: str, template: str = "template0") -> None:
        """Create ``name``, owned by the owner role, as a copy of ``template``."""
        with self._connect("postgres") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(OWNER_ROLE), sql.Identifier(template)
                )
            )

    def drop_database(self, name: str) -> None:
        """Drop ``name`` with its connections."""
        with self._connect("postgres") as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _start(self) -> None:
        binaries = self._binaries or find_binaries(self._account, self.home / "runtime", self._cluster_major())
        self._binaries = binaries
        self._clear_orphan()
        if not (self._data / "PG_VERSION").is_file():
            self._initialise(binaries)
        self._write_access_files()
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            self._launch(binaries)
            if self._becomes_ready(deadline):
                break
            if time.monotonic() > deadline:
                raise Permanent(f"PostgreSQL in {self.home} does not start: {self._last_log_line()}")
            time.sleep(0.2)
        self._ensure_roles()

    def _choose_socket_folder(self) -> Path:
        folder = self.home / "run"
        if len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER:
            return folder
        name = f"ballast-{hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]}"
        if self._account is not None:
            return Path("/run") / name
        runtime = Path(f"/run/user/{os.geteuid()}")
        return (runtime if runtime.is_dir() else Path(tempfile.gettempdir())) / name

    def _claim(self, folder: Path) -> None:
        """Make ``folder`` the server's own, 0700. What somebody else owns, or holds a cluster, keeps its owner."""
        server = self._account.uid if self._account else os.geteuid()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if self._account and found.st_uid == 0 and stat.S_ISDIR(found.st_mode) and _holds_no_cluster(folder):
                os.chown(folder, self._account.uid, self._account.gid, follow_symlinks=False)
                found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise Refused("no_folder", f"{folder}: not a plain folder; choose another data_dir")
            if found.st_uid != server:
                owner, ours = folders.account_name(found.st_uid), folders.account_name(server)
                raise Refused(
                    "foreign_folder",
                    f"{folder} belongs to {owner}, and PostgreSQL would run as {ours}; run ballast as the account that"
                    f" made it, or give it to {ours}",
                )
            folder.chmod(0o700)
        except OSError as error:
            raise Refused("no_folder", f"{error.filename}: {error.strerror}; choose another data_dir") from None

    def _cluster_major(self) -> int | None:
        try:
            return int((self._data / "PG_VERSION").read_text(encoding="ascii").split(".")[0])
        except (FileNotFoundError, ValueError):
            return None

    def _clear_orphan(self) -> None:
        """Stop the postmaster of a killed supervisor; drop the pid file of a killed postmaster."""
        pid_file = self._data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text(encoding="ascii").splitlines()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        deadline = time.monotonic() + _READY_WITHIN_S
        while self._is_our_postmaster(pid):
            os.kill(pid, signal.SIGINT if time.monotonic() < deadline - 30 else signal.SIGQUIT)
            if time.monotonic() > deadline:
                raise Permanent(f"PostgreSQL {pid} of an earlier run on {self.home} does not stop; end it by hand")
            time.sleep(0.1)
        pid_file.unlink(missing_ok=True)

    def _is_our_postmaster(self, pid: int) -> bool:
        try:
            folder = Path(f"/proc/{pid}/cwd").readlink()
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return False
        return folder == self._data and state != "Z"

    def _initialise(self, binaries: Binaries) -> None:
        # A half-made cluster of an interrupted first start holds nothing.
        for entry in self._data.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        flags = ["--auth-local=peer", "--auth-host=reject", "--encoding=UTF8", "--locale=C", f"--username={_SUPERUSER}"]
        if not self._durable:
            flags.append("--no-sync")
        made = run_as(self._account, [binaries.folder / "initdb", *flags, "-D", self._data])
        if made.returncode != 0:
            cause = (made.stderr or made.stdout).strip().splitlines()
            raise Permanent(f"initdb in {self._data}: {cause[0] if cause else 'failed'}")

    def _write_access_files(self) -> None:
        names = {folders.account_name(os.geteuid())}
        if self._account is not None:
            names.add(self._account.name)
        roles = (_SUPERUSER, OWNER_ROLE, APP_ROLE)
        idents = [f'ballast "{name}" {role}\n' for name in sorted(names) for role in roles]
        for name, content in (("pg_hba.conf", "local all all peer map=ballast\n"), ("pg_ident.conf", "".join(idents))):
            path = self.home / name
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)

    def _launch(self, binaries: Binaries) -> None:
        options = {
            **_OPTIONS,
            "unix_socket_directories": str(self._socket_folder),
            "hba_file": str(self.home / "pg_hba.conf"),
            "ident_file": str(self.home / "pg_ident.conf"),
        }
        if not self._durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = self.home / "postgres.log"
        mode = "wb" if log.is_file() and log.stat().st_size > 10_000_000 else "ab"
        with log.open(mode) as output:
            self._process = spawn(
                [binaries.folder / "postgres", "-D", self._data, *flags],
                account=self._account,
                environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                death_signal=signal.SIGINT,
                output=output,
            )

    def _becomes_ready(self, deadline: float) -> bool:
        while self.alive() and time.monotonic() < deadline:
            if self.answers():
                return True
            time.sleep(0.02)
        return False

    def _ensure_roles(self) -> None:
        with self._connect("postgres") as connection:
            known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            for role in (OWNER_ROLE, APP_ROLE):
                if role not in known:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN NOBYPASSRLS").format(sql.Identifier(role)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                self.create_database(DATABASE)

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self._socket_folder),
            port=5432,
            user=_SUPERUSER,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def _last_log_line(self) -> str:
        try:
            lines = (self.home / "postgres.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return lines[-1] if lines else "its log is empty"


def embedded_home(data_dir: Path) -> Path:
    """Return where the cluster of ``data_dir`` lives.

    As root that is ``data_dir/postgres`` when the lent account can reach ``data_dir``; otherwise a folder of its own
    under ``/var/lib/ballast``, since a root-owned 0700 folder must not be opened up for it.
    """
    account = unprivileged_account()
    if account is None:
        return data_dir / "postgres"
    folders.make(data_dir)
    if run_as(account, ["test", "-x", data_dir]).returncode == 0:
        return data_dir / "postgres"
    return _SHARED_HOME / f"postgres-{hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]}"


def wait_for(url: str, within_s: float) -> None:
    """Wait until a server answers at the SQLAlchemy address ``url``.

    Raises:
        Transient: it does not within ``within_s``.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise Transient(f"database: {str(error).strip().splitlines()[0]}") from None
            time.sleep(0.1)
        else:
            return


def _holds_no_cluster(folder: Path) -> bool:
    return not (folder / "PG_VERSION").exists()


def _end(process: subprocess.Popen[bytes]) -> None:
    for signal_number, patience_s in ((signal.SIGINT, 15), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
        if process.poll() is not None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        return
