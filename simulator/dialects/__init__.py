"""The firmwares a simulated miner can speak: each with its protocols, found by its name in ``DIALECTS``.

Invariant: a firmware answers only in protocols that the real one has; a port that it does not open refuses.
"""

from dataclasses import dataclass

from simulator.dialects.antminer import Antminer
from simulator.dialects.antminer_web import AntminerWeb
from simulator.dialects.auradine import Auradine, AuradineWeb
from simulator.dialects.avalon import Avalon
from simulator.dialects.bitaxe import Bitaxe
from simulator.dialects.braiins import Braiins
from simulator.dialects.braiins_rest import BraiinsRest
from simulator.dialects.braiins_web import BraiinsWeb
from simulator.dialects.cgminer import CgMiner
from simulator.dialects.epic import Epic
from simulator.dialects.goldshell import Goldshell
from simulator.dialects.hiveon import Hiveon, HiveonWeb
from simulator.dialects.innosilicon import Innosilicon, InnosiliconWeb
from simulator.dialects.luxos import LuxOs
from simulator.dialects.rpc import Dialect
from simulator.dialects.speech import RpcSpeech
from simulator.dialects.vnish import VnishWeb
from simulator.dialects.vnish_rpc import Vnish
from simulator.dialects.whatsminer import WhatsMiner
from simulator.dialects.whatsminer_v3 import WhatsMinerV3
from simulator.framed import FramedFirmware, FramedSpeech
from simulator.miner import Miner
from simulator.speech import Speech
from simulator.web import WebFirmware, WebSpeech


@dataclass(frozen=True, slots=True)
class Firmware:
    """What one firmware speaks: RPC on ``Place.rpc_port``, pages on ``Place.web_port``, frames on ``Place.port``."""

    name: str
    rpc: Dialect | None = None
    web: WebFirmware | None = None
    framed: FramedFirmware | None = None

    def speeches(self, miner: Miner) -> tuple[tuple[Speech, int], ...]:
        """Return (speech, port) for each port that ``miner`` opens."""
        place, found = miner.place, list[tuple[Speech, int]]()
        if self.rpc is not None:
            found.append((RpcSpeech(miner, self.rpc), place.rpc_port))
        if self.web is not None:
            found.append((WebSpeech(miner, self.web), place.web_port))
        if self.framed is not None:
            found.append((FramedSpeech(miner, self.framed), place.port))
        return tuple(found)


def build_firmwares() -> dict[str, Firmware]:
    """Return every firmware by its dialect's name in inventory.csv."""
    known = (
        Firmware("luxos", LuxOs()),
        Firmware("whatsminer", WhatsMiner()),
        Firmware("avalon", Avalon()),
        Firmware("antminer", Antminer(), AntminerWeb()),
        Firmware("braiins", Braiins(), BraiinsWeb()),
        Firmware("whatsminer-v3", WhatsMiner(), framed=WhatsMinerV3()),
        Firmware("braiins-rest", web=BraiinsRest()),
        Firmware("vnish", Vnish(), VnishWeb()),
        Firmware("cgminer", CgMiner()),
        Firmware("hiveon", Hiveon(), HiveonWeb()),
        Firmware("innosilicon", Innosilicon(), InnosiliconWeb()),
        Firmware("epic", web=Epic()),
        Firmware("auradine", Auradine(), AuradineWeb()),
        Firmware("goldshell", web=Goldshell()),
        Firmware("bitaxe", web=Bitaxe()),
    )
    return {firmware.name: firmware for firmware in known}
