"""What the journal must tell of every history: whole, and of each order what was meant and how it ended."""

from collections import Counter

from agent.local_curtail.chain import Kind, check, entries
from tests.simulation.world import World


def journal_faults(world: World, acks, notices) -> list[str]:
    found = [f"journal: {fault}" for fault in check(world.disk).faults]
    told = entries(world.disk, 0, 10**9)
    kinds = Counter(entry.kind for entry in told)
    if kinds[Kind.OUTCOME] != len(acks):
        found.append(f"journal: {kinds[Kind.OUTCOME]} outcomes for {len(acks)} acks")
    for code, count in Counter(notice.code.value for notice in notices).items():
        if kinds[code] != count:
            found.append(f"journal: {kinds[code]} entries for {count} notices {code}")
    intents = {(entry.subject, entry.kind) for entry in told}
    if world.disk_broken:
        return found
    for _, miner_id, verb in world.device_log:
        if (miner_id, f"{verb}_intent") not in intents:
            found.append(f"journal: {verb} of {miner_id} was sent without an intent")
            break
    return found
