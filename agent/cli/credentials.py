"""The miners' passwords at rest: credentials set, list, remove, forget, rekey. No password is ever an argument."""

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

from agent.cli.shared import Commands, settings_of, takes_config
from agent.errors import BadInput

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.vault import Vault

_LONGEST: Final = 256
_USERS: Final = {
    **dict.fromkeys(("antminer", "antminer-web", "avalon", "braiins", "braiins-rest", "hiveon"), "root"),
    "whatsminer-v3": "super",
    "vnish": "",
    "epic": "",
}
"""Whom each firmware's own pages and vendors' guides log in as; the others have ``admin`` or no user at all."""


def add(commands: Commands) -> None:
    """Add the commands."""
    credentials = commands.add_parser("credentials", help="keep the miners' passwords, encrypted at rest")
    actions = credentials.add_subparsers(required=True, metavar="ACTION")

    keep = actions.add_parser("set", help="keep a group's password, read from the terminal or from stdin")
    takes_config(keep, _set)
    keep.add_argument("group", metavar="GROUP", help="a dialect of inventory.csv, or a name in its credentials column")
    keep.add_argument("--user", help="whom to log in as (the firmware's own administrator)")

    shown = actions.add_parser("list", help="show which groups have a password, without any password")
    takes_config(shown, _list)

    gone = actions.add_parser("remove", help="forget a group's password")
    takes_config(gone, _remove)
    gone.add_argument("group", metavar="GROUP")

    own = actions.add_parser("forget", help="forget a miner's own rotated password; its group's counts again")
    takes_config(own, _forget)
    own.add_argument("miner", metavar="ID")

    rekey = actions.add_parser("rekey", help="seal the vault with another key")
    takes_config(rekey, _rekey)


def _set(options: argparse.Namespace) -> int:
    from agent.cgminer.credentials import Credentials
    from agent.vault import Vault

    settings = settings_of(options)
    group = _named(options.group)
    vault = Vault.open(settings)
    if vault.problem is not None:
        raise BadInput(vault.problem)
    user = _users_name(group) if options.user is None else options.user
    vault.put(group, Credentials(user, _password(group)))
    print(f"kept for group {group}, user {user or '(none)'}, in {vault.path}")
    _say_who_uses_it(settings, group)
    _say_advice(vault)
    return 0


def _list(options: argparse.Namespace) -> int:
    from agent.inventory import load_inventory
    from agent.vault import Vault, group_of

    settings = settings_of(options)
    vault = Vault.open(settings)
    if vault.problem is not None:
        raise BadInput(vault.problem)
    inventory = load_inventory(settings.site.inventory) if settings.site.inventory.exists() else ()
    own = {entry.miner_id for entry in inventory if entry.miner_id.lower() in vault.rotated}
    members = Counter(group_of(entry) for entry in inventory if entry.miner_id not in own)
    print(f"{'group':<16} {'user':<12} {'miners':>6}  password")
    for name in sorted({*vault.groups, *members}):
        found = vault.group(name)
        user, kept = ("-", "none") if found is None else (found.user or "(none)", vault.place_of(name))
        print(f"{name:<16} {user:<12} {members[name]:>6}  {kept}")
    print(f"{len(vault.rotated)} miners have a password of their own", end="")
    print(f", {len(vault.unsettled)} rotations are not settled" if vault.unsettled else "")
    _say_advice(vault)
    return 0


def _remove(options: argparse.Namespace) -> int:
    from agent.vault import Vault

    Vault.open(settings_of(options)).remove(options.group)
    print(f"forgotten: group {options.group}")
    return 0


def _forget(options: argparse.Namespace) -> int:
    from agent.vault import Vault

    vault = Vault.open(settings_of(options))
    if options.miner.lower() not in vault.rotated | vault.unsettled:
        raise BadInput(vault.problem or f"{vault.path}: {options.miner} has no password of its own; nothing to forget")
    vault.forget(options.miner)
    print(f"forgotten: the own password of {options.miner}; its group's counts again")
    return 0


def _rekey(options: argparse.Namespace) -> int:
    from agent.vault import Vault

    vault = Vault.open(settings_of(options))
    print(f"sealed anew with the key in {vault.rekey()}; a running agent takes it up by itself")
    return 0


def _named(group: str) -> str:
    name = group.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise BadInput(f"GROUP: {group!r} is no name; write a dialect of inventory.csv, or a short name of your own")
    return name


def _users_name(group: str) -> str:
    return _USERS.get(group, "admin")


def _password(group: str) -> str:
    """Return the password typed twice at the terminal, or the one line that stdin holds. Raises BadInput."""
    import getpass

    if sys.stdin.isatty():
        password = getpass.getpass(f"password of group {group}: ")
        if getpass.getpass("the same again: ") != password:
            raise BadInput("the two passwords differ; nothing was kept; try again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadInput("the password is empty; type it at the terminal, or write it as one line to stdin")
    if len(password) > _LONGEST or not password.isprintable():
        raise BadInput(f"the password has characters that cannot be printed, or more than {_LONGEST}; correct it")
    return password


def _say_who_uses_it(settings: "Settings", group: str) -> None:
    from agent.inventory import load_inventory
    from agent.vault import group_of

    try:
        members = sum(group_of(entry) == group for entry in load_inventory(settings.site.inventory))
    except BadInput:
        return  # the inventory's own commands say what is wrong with it
    if members == 0:
        print(
            f"no miner of {settings.site.inventory.name} is in this group yet; see its dialect and credentials columns"
        )
    else:
        print(f"{members} miners of {settings.site.inventory.name} are opened with it")


def _say_advice(vault: "Vault") -> None:
    if vault.advice is not None:
        print(f"warning: {vault.advice}", file=sys.stderr)
