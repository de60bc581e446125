"""CGMiner's own pool commands: ``addpool``, ``removepool``, ``switchpool``, ``poolpriority``.

Invariants: numbers stay as they are when another pool becomes the active one, and close up when one is removed; the
active pool and the last one cannot be removed.

Source: CGMiner's API-README, messages 25 to 27, 52, 55, 66 to 68 and 73.
"""

from collections.abc import Callable

from simulator.dialects.rpc import Section
from simulator.kept import Pool
from simulator.miner import Miner


def change_pools(miner: Miner, command: str, parameter: str) -> Section | None:
    """Return the answer to one of the commands; None when it is another."""
    change = _COMMANDS.get(command)
    return None if change is None else change(miner, parameter)


def _add(miner: Miner, parameter: str) -> Section:
    fields = parameter.split(",")
    if len(fields) < 3 or not fields[0] or not fields[1]:
        return Section(52, f"Invalid addpool details '{parameter}'", letter="E")
    pools = (*miner.kept.pools, Pool(fields[0], fields[1], fields[2]))
    miner.set_pools(pools, miner.kept.active_pool)
    return Section(55, f"Added pool {len(pools) - 1}: '{fields[0]}'")


def _remove(miner: Miner, parameter: str) -> Section:
    pools, active = miner.kept.pools, miner.kept.active_pool
    number = _number(miner, parameter)
    if number is None:
        return _unknown(miner, parameter)
    if len(pools) == 1:
        return Section(66, f"Cannot remove last pool {number}:'{pools[number].url}'", letter="E")
    if number == active:
        return Section(67, f"Cannot remove active pool {number}:'{pools[number].url}'", letter="E")
    left = tuple(pool for place, pool in enumerate(pools) if place != number)
    miner.set_pools(left, active - (number < active))
    return Section(68, f"Removed pool {number}:'{pools[number].url}'")


def _switch(miner: Miner, parameter: str) -> Section:
    number = _number(miner, parameter)
    if number is None:
        return _unknown(miner, parameter)
    miner.set_pools(miner.kept.pools, number)
    return Section(27, f"Switching to pool {number}:'{miner.kept.pools[number].url}'")


def _prioritise(miner: Miner, parameter: str) -> Section:
    numbers = [_number(miner, part) for part in parameter.split(",")]
    known = [number for number in numbers if number is not None]
    if len(known) != len(numbers) or len(set(known)) != len(known):
        return _unknown(miner, parameter)
    miner.set_pools(miner.kept.pools, known[0])
    return Section(73, "Changed pool priorities")


def _number(miner: Miner, text: str) -> int | None:
    plain = text.strip()
    return int(plain) if plain.isdecimal() and int(plain) < len(miner.kept.pools) else None


def _unknown(miner: Miner, parameter: str) -> Section:
    return Section(26, f"Invalid pool id {parameter} - range is 0 - {len(miner.kept.pools) - 1}", letter="E")


_COMMANDS: dict[str, Callable[[Miner, str], Section]] = {
    "addpool": _add,
    "removepool": _remove,
    "switchpool": _switch,
    "poolpriority": _prioritise,
}
