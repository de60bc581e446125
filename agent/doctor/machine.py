"""The doctor's look at the machine: disk, permissions, open files, the wall clock."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.descriptors import wanted_by_daemon
from agent.doctor.finding import Finding, bad, ok, unknown, warn
from agent.errors import BadInput
from agent.inventory import load_meters
from agent.local_curtail.anchor import Anchor, held_time
from agent.settings import Settings
from sitelink.clock import Clock

_LEAST_FREE_BYTES: Final = 64 * 1024**2
_SCARCE_BYTES: Final = 512 * 1024**2
_SCARCE_FILES: Final = 1000
_JUMP_S: Final = 5.0
_FOREIGN: Final = stat.S_IRWXG | stat.S_IRWXO
_NAMED: Final = 3


def disk(settings: Settings) -> Iterator[Finding]:
    """Return how much room there is, and whether anything can be written."""
    folder = settings.site.state_dir
    if not folder.exists():
        yield warn("disk", f"{folder}: not there yet", "enrol or start the agent: it makes it")
        return
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    megabytes = f"{free / 1024**2:,.0f} MB free"
    if found.f_flag & os.ST_RDONLY:
        yield bad("disk", f"{folder}: its file system is read-only", "look in dmesg for its cause; remount it writable")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield bad("disk", f"{folder}: this user may not write there", "run this as root, or as the daemon's user")
    elif free < _LEAST_FREE_BYTES or (found.f_files and found.f_favail == 0):
        step = (
            f"free some: du -xh {folder.anchor} | sort -h | tail; miners are still started on time, nobody is stopped"
        )
        yield bad("disk", f"{megabytes}, {found.f_favail:,} files left", step)
    elif free < _SCARCE_BYTES or (found.f_files and found.f_favail < _SCARCE_FILES):
        yield warn("disk", f"{megabytes}, {found.f_favail:,} files left", "free some before readings are thinned out")
    else:
        yield ok("disk", megabytes)


def permissions(settings: Settings) -> Iterator[Finding]:
    """Return what of ``state_dir`` others may read, and what its owner cannot."""
    folder = settings.site.state_dir
    if not folder.exists():
        yield unknown("permissions", f"{folder}: not there yet")
        return
    inside = folder.stat()
    if inside.st_mode & _FOREIGN:
        yield warn("permissions", f"{folder}: others than its owner may look inside", f"chmod 700 {folder}")
    foreign = [path for path in _files(folder) if path.lstat().st_uid != inside.st_uid]
    open_keys = [path for path in _files(folder / "identity") if path.lstat().st_mode & _FOREIGN]
    if foreign:
        names = ", ".join(path.name for path in foreign[:_NAMED])
        step = f"chown -R --reference={folder} {folder}"
        yield bad("permissions", f"{names}: of another owner than {folder}, who cannot write them", step)
    if open_keys:
        names = ", ".join(path.name for path in open_keys[:_NAMED])
        yield bad("permissions", f"{names}: others can read this site's key", f"chmod 600 {folder}/identity/*")
    if not foreign and not open_keys:
        yield ok("permissions", f"{folder} belongs to user {inside.st_uid} alone")


def open_files(settings: Settings) -> Iterator[Finding]:
    """Return whether as many miners can be talked to at once as the settings say."""
    needed = wanted_by_daemon(settings.poll.concurrency, settings.control.concurrency, _meters(settings))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        step = "set LimitNOFILE in the unit, or lower [poll] concurrency"
        yield warn("open files", f"at most {hard} may be open here, {needed} are wanted at times", step)
    else:
        yield ok("open files", f"{needed} are wanted at times and may be open")


def _meters(settings: Settings) -> int:
    try:
        return len(load_meters(settings.site.meters))
    except BadInput:
        return 0  # the look at the lists names what is wrong with it


def wall_clock(anchor: Anchor | None, clock: Clock) -> Iterator[Finding]:
    """Return by how much the machine's clock differs from the site's time."""
    if anchor is None or not anchor.holds(clock):
        yield unknown("wall clock", "nothing of this boot to compare it with")
        return
    now, _ = held_time(anchor, clock)
    off_s = (clock.now() - now).total_seconds()
    if abs(off_s) > _JUMP_S:
        step = "see timedatectl; curtailments do not use this clock, but overrides across a reboot do"
        yield warn("wall clock", f"{abs(off_s):,.0f} s {'ahead of' if off_s > 0 else 'behind'} the signed time", step)
    else:
        yield ok("wall clock", f"within {abs(off_s):.1f} s of the signed time")


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.rglob("*")) if not path.is_symlink())
