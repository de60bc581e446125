"""The site's miner passwords, encrypted at rest in ``state_dir/credentials.vault``.

    sealed: {"groups": {group: [user, password]}, "miners": {id: ..}, "proposed": {id: ..}}

A miner is opened by its own rotated password, else by its group's, else by nothing of ours: no factory password is
known here.

Invariants:

* ``Vault.open`` never fails: what cannot be read is said in ``problem``, and whoever needs no password goes on.
* A vault that cannot be read is never written over.
* A rotated password is on disk before the device is told (``propose``), and the former one stays until the device has
  answered to the new one (``settle``): a crash between the two loses neither.
* Without a vault, cryptography is not imported.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from agent.cgminer.credentials import Credentials
from agent.errors import BadInput, SessionBusy
from agent.files import alone_with, replace_file
from agent.vault.keys import KeyPlaces, VaultKey
from agent.vault.sealed import Sealed, seal
from sitelink.miners import AUTO

if TYPE_CHECKING:
    from agent.settings import Settings
    from sitelink.inventory import MinerEntry

_WHATSMINER: Final = "whatsminer"
_WHATSMINER_USER: Final = "admin"
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a vault holds. Miners are named as the inventory names them, lower-case."""

    groups: Mapping[str, Credentials] = field(default_factory=dict)
    miners: Mapping[str, Credentials] = field(default_factory=dict)
    proposed: Mapping[str, Credentials] = field(default_factory=dict)


class Vault:
    """The passwords of one site. ``problem`` says why those in the file cannot be had, None when they can."""

    def __init__(self, state_dir: Path, keys: KeyPlaces, fallback: Mapping[str, Credentials]) -> None:
        """``fallback`` holds groups written elsewhere, which count when the vault has none of their name."""
        self.path = state_dir / "credentials.vault"
        self.problem: str | None = None
        self._keys = keys
        self._fallback = fallback
        self._contents = Contents()
        self._stamp: _Stamp | None = None
        self.refresh()

    @classmethod
    def open(cls, settings: "Settings") -> Self:
        """Return the vault of ``settings``; empty when there is none yet."""
        password = settings.control.whatsminer_password
        fallback = {_WHATSMINER: Credentials(_WHATSMINER_USER, password)} if password else {}
        return cls(settings.site.state_dir, KeyPlaces(settings.site.state_dir, settings.key_directory), fallback)

    def refresh(self) -> bool:
        """Read the file again if it has changed; return whether it had."""
        stamp = self._seen()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._contents, self.problem = (Contents() if stamp is None else self._read()), None
        except BadInput as error:
            self._contents, self.problem = Contents(), str(error)
        return True

    def credentials(self, entry: "MinerEntry", dialect: str = "") -> Credentials | None:
        """Return what opens the miner: its own rotated password, else its group's; None when neither is known.

        ``dialect`` is the one found out, where the inventory says ``auto``.
        """
        own = self._contents.miners.get(entry.miner_id.lower())
        return own if own is not None else self.group(group_of(entry, dialect))

    def proposed(self, entry: "MinerEntry") -> Credentials | None:
        """Return the password that a rotation not yet settled may have given the miner, None when there is none."""
        return self._contents.proposed.get(entry.miner_id.lower())

    def group(self, name: str) -> Credentials | None:
        """Return a group's user and password, None when it has none."""
        found = self._contents.groups.get(name)
        return self._fallback.get(name) if found is None else found

    @property
    def groups(self) -> Mapping[str, Credentials]:
        """Return every group, those written elsewhere included."""
        return {**self._fallback, **self._contents.groups}

    def place_of(self, group: str) -> str:
        """Return in words where a group's password is kept."""
        return "in the vault" if group in self._contents.groups else "whatsminer_password of the settings"

    @property
    def rotated(self) -> frozenset[str]:
        """Return the miners that have a password of their own."""
        return frozenset(self._contents.miners)

    @property
    def unsettled(self) -> frozenset[str]:
        """Return the miners whose rotation is proposed and not settled."""
        return frozenset(self._contents.proposed)

    @property
    def advice(self) -> str | None:
        """Return what weakens the vault and what to do, None when nothing does."""
        place = self._keys.open_to_others()
        return None if place is None else f"{place}: others than its owner can read it; run chmod 600 {place}"

    def key(self) -> VaultKey:
        """Return the key that the vault is sealed with, or would be if there were one; it is made if need be.

        Raises:
            BadInput: there is none that fits. OSError: it cannot be written.
        """
        if self._seen() is None:
            return self._keys.for_a_new_vault()
        return self._keys.named(Sealed.read(self.path).key)

    def key_named(self, name: str) -> VaultKey:
        """Return the key called ``name``. Raises BadInput when it is gone."""
        return self._keys.named(name)

    def put(self, group: str, credentials: Credentials) -> None:
        """Keep a group's user and password.

        Raises:
            BadInput: the vault there cannot be read, or not be written.
            SessionBusy: another process changes it at this moment.
        """
        self._change(lambda now: replace(now, groups={**now.groups, group: credentials}))

    def remove(self, group: str) -> None:
        """Forget a group. Raises BadInput when it is not in the vault, else as ``put``."""

        def without(now: Contents) -> Contents:
            if group not in now.groups:
                known = ", ".join(sorted(now.groups)) or "none"
                raise BadInput(f"{self.path}: no group {group!r} is in it; the groups are: {known}")
            return replace(now, groups={name: each for name, each in now.groups.items() if name != group})

        self._change(without)

    def propose(self, miner_id: str, credentials: Credentials) -> None:
        """Keep the password a miner is about to be given, beside the present one. Raises as ``put``."""
        self._change(lambda now: replace(now, proposed={**now.proposed, miner_id.lower(): credentials}))

    def settle(self, miner_id: str, *, taken: bool) -> None:
        """End a rotation: the proposed password counts if it was ``taken``, else it is forgotten. Raises as ``put``.

        Safe to repeat: without a proposal nothing changes.
        """
        name = miner_id.lower()

        def settled(now: Contents) -> Contents:
            proposed = dict(now.proposed)
            fresh = proposed.pop(name, None)
            miners = {**now.miners, name: fresh} if taken and fresh is not None else now.miners
            return replace(now, miners=miners, proposed=proposed)

        self._change(settled)

    def forget(self, miner_id: str) -> None:
        """Forget a miner's own password, so that its group's counts again. Raises as ``put``."""
        name = miner_id.lower()
        self._change(
            lambda now: replace(
                now,
                miners={each: value for each, value in now.miners.items() if each != name},
                proposed={each: value for each, value in now.proposed.items() if each != name},
            )
        )

    def rekey(self) -> str:
        """Seal the vault with another key, the one systemd hands over if there is one; return where that is.

        Raises as ``put``; BadInput too when there is no vault.
        """
        with self._writing():
            if self._seen() is None:
                raise BadInput(f"{self.path}: there is no vault yet; make one: ballast-agent credentials set GROUP")
            contents = self._read()
            self._keys.keep_only(self._keys.named(Sealed.read(self.path).key))  # what a cut-off rekey left
            key = self._keys.successor()
            self._write(contents, key)
            self._keys.keep_only(key)
        self.refresh()
        return str(key.place.with_suffix("") if key.place.suffix == ".next" else key.place)

    def _change(self, change: Callable[[Contents], Contents]) -> None:
        with self._writing():
            there = self._seen() is not None
            before = self._read() if there else Contents()
            after = change(before)
            if after != before or not there:
                key = self._keys.named(Sealed.read(self.path).key) if there else self._keys.for_a_new_vault()
                self._write(after, key)
        self.refresh()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep every other process from changing the vault meanwhile; tell a disk's refusal as a person needs it."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with alone_with(self.path):
                yield
        except BlockingIOError:
            raise SessionBusy(f"{self.path}: another process changes it at this moment; try again") from None
        except OSError as error:
            raise BadInput(
                f"{self.path}: cannot be written: {error.strerror}; what was in it stays; check the folder's "
                "permissions and free space, and run as the user of the service"
            ) from None

    def _seen(self) -> _Stamp | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError:
            return (0, 0, 0)  # something is there: reading it will say what is wrong
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> Contents:
        sealed = Sealed.read(self.path)
        try:
            key = self._keys.named(sealed.key)
        except BadInput as error:
            raise BadInput(f"{self.path}: cannot be opened: {error}") from None
        return _contents(sealed.opened(key))

    def _write(self, contents: Contents, key: VaultKey) -> None:
        document = {name: dict(getattr(contents, name)) for name in Contents.__slots__}
        replace_file(self.path, seal(document, key))


def group_of(entry: "MinerEntry", dialect: str = "") -> str:
    """Return the group whose password opens the miner: the one the inventory names, else its dialect's own."""
    return entry.credentials or (dialect if entry.dialect == AUTO and dialect else entry.dialect)


def _contents(document: Mapping[str, Mapping[str, Any]]) -> Contents:
    return Contents(
        **{
            name: {each: Credentials(str(user), str(password)) for each, (user, password) in document[name].items()}
            for name in Contents.__slots__
        }
    )
