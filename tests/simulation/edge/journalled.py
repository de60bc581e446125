"""What must hold of the journal in every history: whole at the site, carried once each, and all of it in the cloud."""

from collections import Counter
from typing import TYPE_CHECKING

from agent.local_curtail.chain import check, entries
from sitelink import codec
from sitelink.types import BatchKind

if TYPE_CHECKING:
    from tests.simulation.edge.play import EdgePlay

CARRIED_S = 60.0
"""An entry so old has come through: what a link needs to drain, and the second between two carriages."""


def judge_journal(play: "EdgePlay") -> None:
    world = play.world
    file = world.connect()
    for fault in check(file).faults:
        world.violated("journal is whole", fault)
    written = {entry.hash: entry for entry in entries(file, 0, 10**9)}
    control = [item.batch for item in world.cloud.stored.values() if item.batch.kind is BatchKind.CONTROL]
    arrived = Counter(entry.hash for batch in control for entry in codec.unpack(batch.payload).journal)
    doubled = [times for times in arrived.values() if times > 1]
    if doubled:
        world.violated("journal once each", f"{len(doubled)} entries came more than once")
    if strangers := arrived.keys() - written.keys():
        world.violated("journal is whole", f"{len(strangers)} entries came that the site does not have")
    kept = list(written)
    missing = [number for number, name in enumerate(kept) if name not in arrived]
    if missing and missing != list(range(missing[0], len(kept))):
        world.violated("journal in order", f"entry {missing[0] + 1} is missing before others that came")
    cut_us = int((world.true_time().timestamp() - CARRIED_S) * 1e6)
    old = [written[kept[number]] for number in missing if written[kept[number]].at_us < cut_us]
    if old:
        world.violated("no entry lost", f"{len(old)} entries never came, the first {old[0]}")
