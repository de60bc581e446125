"""``ballast broker``: writes what an MQTT broker of the link needs from this cloud's CA."""

import argparse
import os
from pathlib import Path
from typing import Any

from cloud.cli.session import add_config, open_database
from cloud.core.errors import BadInput
from cloud.identity.authority import CertificateAuthority
from cloud.identity.revocation import FILE_NAME, WithdrawnCertificates


def register(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "broker",
        help="write a broker's certificate, and the list of withdrawn ones",
        description="Write ca.crt, broker.crt, broker.key and agents.crl into a folder for an MQTT broker of the link;"
        " what is still good stays. Run it each day and have the broker reload.",
    )
    add_config(parser)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the broker reads them")
    parser.add_argument(
        "--name", action="append", default=[], help="a name or address that agents reach the broker under, if checked"
    )
    parser.set_defaults(run=_write)


def _write(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, _):
        authority = CertificateAuthority(settings.key_dir, database.clock)
        withdrawn = WithdrawnCertificates(authority.folder, authority)
        withdrawn.update(database)
        served = authority.broker(arguments.name)
        files = {
            "ca.crt": authority.pem,
            "broker.crt": served.chain_pem,
            "broker.key": served.key_pem,
            FILE_NAME: withdrawn.path.read_bytes(),
        }
    folder: Path = arguments.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _put(folder / name, content)
    except OSError as error:
        raise BadInput(f"{error.filename or folder}: {error.strerror}; name a folder that can be written") from None
    print(f"{', '.join(files)} are in {folder}; have the broker read them: systemctl reload mosquitto")
    return 0


def _put(path: Path, content: bytes) -> None:
    """Replace ``path`` whole. A key is its owner's alone; mode and owner that were given to the file stay."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600 if path.suffix == ".key" else 0o644)
    if path.exists():
        before = path.stat()
        partial.chmod(before.st_mode & 0o777)
        if (partial.stat().st_uid, partial.stat().st_gid) != (before.st_uid, before.st_gid):
            os.chown(partial, before.st_uid, before.st_gid)
    partial.write_bytes(content)
    partial.replace(path)
