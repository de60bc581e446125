"""The matrix as a page: one table a firmware, a row a fault, a column a verb."""

import asyncio
from collections.abc import Iterable

from agent.cgminer.control.carry_out import INSTEAD
from agent.cgminer.control.drivers import driver_of
from sitelink.types import Verb
from tests.matrix.cells import Cell, firmwares, play
from tests.matrix.contactor import CONTACTOR
from tests.matrix.faults import FAULTS, Fault

AT_ONCE = 24
SEPARATOR = "-"
HEAD = """# What becomes of an order: firmware, verb, fault

Written by `python -m tests.matrix --write`; a test plays it again and fails when this page is stale.

Each cell is one order carried out by the agent's own driver on a simulated miner that speaks the firmware's real
protocol, with the fault named on the left. `complete`, `partial`, `unverified` and `refused` are outcomes, the word
after them is the reason code. `not sent` means that nothing left the agent, so the order may be tried again.

* **Told is not done.** `complete` is said only of what was read back; every `complete` on this page was checked against
  what the simulated miner really did, which the agent cannot see: a start against its hashing once the miner has ramped
  up, a log against the bytes that the miner handed out.
* **Stop and start** are one attempt of local curtailment, as plans, overrides and commands give it, by its own judges and
  its own patience (20 s), on a feeder without a meter. A feeder's meter can only take a `complete` away. A stop that is not
  complete, and a start until its miner is back, are tried again. A miner that stands still already sheds no load:
  `already_idle` is no `complete`. Nor is one that stopped itself because it is hot.
* **Goes on and reports idle**: nothing that such a miner says of itself can tell, so without a meter its stop is `complete`, and this
  page marks it **untrue**. On a feeder with a meter no such stop is complete: the miner or its feeder is named
  ([decision 0008](decisions/0008-a-feeder-is-judged-whole.md)), which the simulation plays. Have a meter where money hangs on it.
* **A dash** stands where the fault cannot occur or cannot matter: a session is LuxOS's alone, tokens run out on Whatsminers, only web
  pages have server errors, what is told without a password knows no wrong one, and a second reboot is another reboot.
  A test plays what is dashed for want of a difference, and one sees that no fault passes as if there were none.
* **Half of the boards** show by power. A start is `complete` once the miner hashes, with half of its boards as well, and where a firmware
  shows no power, half a limit does not show.
* **Faults marked "as it is told"** strike after the miner was identified and its configuration saved, while the order is
  on its way; the others are there from the start.
* **Killed** means that the agent's process dies there and the order is taken up again from what it had kept. Reboot,
  firmware and logs are then looked at and never sent a second time: what cannot be seen is `outcome_unknown`.
* **A missing column is missing on purpose:** the vendor documents no such command. The order is refused as
  `unsupported`, with what to use instead.
* **A contactor** stops and starts a miner whose firmware cannot, here an ePIC behind a Modbus coil. The coil measures nothing, so without
  a feeder's meter a stop stays `power_unknown`; `says ok, does nothing` is a welded one. A start asks the miner nothing first, and is
  given three attempts, since the miner boots for half a minute.
* **Plain CGMiner** shows no power and no lamp, so its stop and its lamp are never `complete` here; a feeder's meter judges the stop.
"""


async def play_all(names: Iterable[str]) -> list[Cell]:
    """Play every cell of these firmwares, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(firmware: str, verb: Verb, fault: Fault) -> Cell:
        async with gate:
            return await play(firmware, verb, fault)

    wanted = [
        (firmware, verb, fault)
        for firmware in names
        for verb in verbs_of(firmware)
        for fault in FAULTS
        if fault.strikes(firmware, verb)
    ]
    return list(await asyncio.gather(*(one(*cell) for cell in wanted)))


def verbs_of(firmware: str) -> list[Verb]:
    """The verbs a firmware's driver has, in their own order."""
    if firmware == CONTACTOR:
        return [Verb.STOP, Verb.START]
    driver = driver_of(firmware)
    return [verb for verb in Verb if driver is not None and verb in driver.verbs]


def section(firmware: str, cells: Iterable[Cell]) -> str:
    """One firmware's table."""
    found = {(cell.fault.title, cell.verb): _shown(cell) for cell in cells if cell.firmware == firmware}
    verbs = verbs_of(firmware)
    lines = [
        f"## {firmware}\n",
        "| fault | " + " | ".join(verb.value for verb in verbs) + " |",
        "|---" * (len(verbs) + 1) + "|",
    ]
    for fault in FAULTS:
        endings = (found.get((fault.title, verb), SEPARATOR) for verb in verbs)
        lines.append(f"| {fault.title} | " + " | ".join(endings) + " |")
    missing = [verb for verb in Verb if verb not in verbs]
    if firmware == CONTACTOR:
        lines.append("\nEverything else is told to the firmware behind it.")
    elif missing:
        lines.append("\nNot documented by its vendor: " + "; ".join(f"{v.value} ({INSTEAD[v]})" for v in missing) + ".")
    return "\n".join(lines) + "\n"


def _shown(cell: Cell) -> str:
    return f"{cell.ending}, **untrue**" if cell.complete and not cell.kept_to else cell.ending


def page(cells: Iterable[Cell]) -> str:
    """The whole page."""
    known = list(cells)
    return "\n".join((HEAD, *(section(name, known) for name in firmwares())))
