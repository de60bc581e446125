"""Who stands on a simulated site: models, identities, places, addresses, all drawn from the seed. Pure.

Invariants: the same ``RosterOptions`` always give the same roster; identities and addresses never repeat;
liars are controllable and alive; with liars at all and 20 miners, both kinds of liar exist.
"""

import random
from dataclasses import dataclass, replace

from simulator import noise
from sitelink.units import TeraHashPerSecond, Watts

DIALECTS = ("luxos", "whatsminer", "avalon", "antminer", "braiins")
"""What stands on a site unless it is asked for others."""
FURTHER_DIALECTS = (
    *("whatsminer-v3", "braiins-rest", "vnish", "cgminer"),
    *("hiveon", "innosilicon", "epic", "auradine", "goldshell", "bitaxe"),
)
"""What stands there when asked for; those of the second line can be read and not be controlled."""
ALL_DIALECTS = DIALECTS + FURTHER_DIALECTS
CONTROLLABLE = ("luxos", "whatsminer", "avalon")
"""Who may lie on a default site; on another, whoever takes orders may."""
TAKE_ORDERS = (*DIALECTS, *FURTHER_DIALECTS[:4])
LIARS = ("ack_without_effect", "reports_idle")
_WEIGHT = {"luxos": 0.28, "whatsminer": 0.28, "avalon": 0.18, "antminer": 0.14, "braiins": 0.12}
_FURTHER_WEIGHT = 0.1
_FEEDERS_PER_RACK = 2


@dataclass(frozen=True, slots=True)
class Model:
    """One miner model. ``stop_s`` and ``warm_s`` are seconds from full power to idle and back."""

    dialect: str
    name: str
    nameplate_w: Watts
    nameplate_ths: TeraHashPerSecond
    boards: int
    chips: int
    stop_s: float
    warm_s: float


def _model(
    dialect: str, name: str, power_w: int, ths: float, chips: int, stop_s: float, warm_s: float, boards: int = 3
) -> Model:
    return Model(dialect, name, Watts(power_w), TeraHashPerSecond(ths), boards, chips, stop_s, warm_s)


MODELS = (
    _model("luxos", "Antminer S19", 3250, 95, 76, 1.6, 7.5),
    _model("luxos", "Antminer S19j Pro", 3068, 104, 126, 1.5, 7.0),
    _model("luxos", "Antminer S19 XP", 3010, 140, 110, 1.4, 8.0),
    _model("luxos", "Antminer S21", 3500, 200, 108, 1.2, 8.5),
    _model("whatsminer", "M30S+_VE40", 3400, 100, 135, 3.5, 9.0),
    _model("whatsminer", "M30S++_VG40", 3472, 112, 111, 3.2, 9.0),
    _model("whatsminer", "M50_VG30", 3306, 114, 111, 3.0, 8.5),
    _model("whatsminer", "M60_VK20", 3422, 172, 111, 2.8, 8.0),
    _model("avalon", "1366", 3250, 130, 114, 2.2, 8.0),
    _model("avalon", "1466", 3230, 150, 132, 2.0, 7.5),
    _model("antminer", "Antminer S19 Pro", 3250, 110, 114, 2.5, 8.0),
    _model("antminer", "Antminer S19 XP", 3010, 140, 110, 2.5, 8.0),
    _model("antminer", "Antminer S21", 3200, 200, 108, 2.5, 8.0),
    _model("braiins", "Antminer S19j Pro", 3068, 104, 126, 1.8, 8.5),
    _model("braiins", "Antminer S19k Pro", 2760, 120, 77, 1.8, 8.5),
    _model("whatsminer-v3", "M60S_VK40", 3441, 186, 111, 2.8, 8.0),
    _model("whatsminer-v3", "M66S_VK30", 5513, 298, 156, 2.6, 8.0),
    _model("braiins-rest", "Antminer S19 XP", 3010, 141, 110, 1.8, 8.5),
    _model("braiins-rest", "Antminer S21 Pro", 3510, 234, 65, 1.8, 8.5),
    _model("vnish", "Antminer S19j Pro", 3068, 104, 126, 1.6, 8.0),
    _model("vnish", "Antminer S21 Pro", 3510, 234, 65, 1.6, 8.0),
    _model("cgminer", "KnCMiner rig", 2900, 88, 96, 2.0, 8.0),
    _model("cgminer", "BitForce SC rig", 3150, 96, 128, 2.0, 8.0),
    _model("hiveon", "Antminer S19 Hiveon", 3250, 95, 76, 2.0, 8.0),
    _model("innosilicon", "T3+ 57T", 3300, 57, 96, 2.0, 9.0),
    _model("epic", "AntMiner S19 XP", 3010, 143, 110, 1.8, 8.0),
    _model("auradine", "AT1500", 2950, 150, 132, 1.8, 8.0),
    _model("goldshell", "Goldshell-CK5", 2400, 12, 90, 1.5, 6.0),
    _model("bitaxe", "BitAxe Gamma", 18, 1.2, 1, 0.5, 4.0, boards=1),
)


@dataclass(frozen=True, slots=True)
class Place:
    """One miner as it stands on site. ``miner_id`` is its MAC (lower-case, colons); on stock Antminers its serial.

    ``port`` is where the inventory says its API is; ``web_port`` its web page's, the same where a firmware serves its
    pages on the API's port; ``rpc_port`` CGMiner's, another than ``port`` on a Whatsminer of API v3, which has both.
    """

    index: int
    miner_id: str
    mac: str
    serial: str
    model: Model
    host: str
    port: int
    web_port: int
    rpc_port: int
    feeder_id: str
    rack: str
    position: int
    actual_w: Watts
    actual_ths: TeraHashPerSecond
    idle_share: float
    dead: bool = False
    liar: str | None = None


@dataclass(frozen=True, slots=True)
class RosterOptions:
    """What to put on the site; ``dead`` and ``liars`` are shares of all miners, ``net`` the first two address bytes."""

    site_id: str
    miners: int
    seed: int
    net: str = "127.20"
    port: int = 4028
    web_port: int = 8080
    framed_port: int = 4433
    dialects: tuple[str, ...] = DIALECTS
    dead: float = 0.0
    liars: float = 0.0
    feeder_size: int = 10


def build_roster(options: RosterOptions) -> tuple[Place, ...]:
    """Return ``options.miners`` places in order of index."""
    rng = random.Random(noise.key("roster", options.site_id, options.seed))
    dialects = _draw_dialects(options, rng)
    places = [_place(options, index, dialect, rng) for index, dialect in enumerate(dialects)]
    return _with_faults(options, places, rng)


def _draw_dialects(options: RosterOptions, rng: random.Random) -> list[str]:
    """Return one dialect a miner: shares by weight, largest remainder, each asked-for dialect at least once."""
    weight = {dialect: _WEIGHT.get(dialect, _FURTHER_WEIGHT) for dialect in options.dialects}
    exact = {dialect: options.miners * weight[dialect] / sum(weight.values()) for dialect in options.dialects}
    counts = {dialect: max(int(share), 1) for dialect, share in exact.items()}
    by_remainder = sorted(options.dialects, key=lambda dialect: exact[dialect] - int(exact[dialect]), reverse=True)
    for turn in range(options.miners):
        if sum(counts.values()) >= options.miners:
            break
        counts[by_remainder[turn % len(by_remainder)]] += 1
    drawn = [dialect for dialect in options.dialects for _ in range(counts[dialect])][: options.miners]
    rng.shuffle(drawn)
    return drawn


def _place(options: RosterOptions, index: int, dialect: str, rng: random.Random) -> Place:
    model = rng.choice([model for model in MODELS if model.dialect == dialect])
    unique = noise.key("identity", options.site_id, options.seed, index)
    mac_bytes = [
        0x02,
        ALL_DIALECTS.index(dialect) + 0xA0,
        unique & 0xFF,
        index >> 16 & 0xFF,
        index >> 8 & 0xFF,
        index & 0xFF,
    ]
    mac_bytes[2] ^= noise.key(options.site_id) & 0xFF
    mac = ":".join(f"{byte:02x}" for byte in mac_bytes)
    serial = f"{unique:016x}"
    feeder = index // options.feeder_size
    rack, shelf = divmod(feeder, _FEEDERS_PER_RACK)
    tuning = rng.uniform(-0.025, 0.025)
    return Place(
        index=index,
        miner_id=serial if dialect == "antminer" else mac,
        mac=mac,
        serial=serial,
        model=model,
        host=f"{options.net}.{1 + index // 250}.{1 + index % 250}",
        port=options.framed_port if dialect == "whatsminer-v3" else options.port,
        web_port=options.port if dialect == "epic" else options.web_port,
        rpc_port=options.port,
        feeder_id=f"{options.site_id}-F{feeder + 1:02d}",
        rack=f"C{rack // 4 + 1}-R{rack % 4 + 1}",
        position=shelf * options.feeder_size + index % options.feeder_size + 1,
        actual_w=Watts(model.nameplate_w * (1 + tuning)),
        actual_ths=TeraHashPerSecond(model.nameplate_ths * (1 + tuning * 0.6 + rng.uniform(-0.012, 0.012))),
        idle_share=rng.uniform(0.010, 0.019),
    )


def _with_faults(options: RosterOptions, places: list[Place], rng: random.Random) -> tuple[Place, ...]:
    dead = set(rng.sample(range(len(places)), round(len(places) * options.dead)))
    able = CONTROLLABLE if options.dialects == DIALECTS else TAKE_ORDERS
    candidates = [place.index for place in places if place.index not in dead and place.model.dialect in able]
    wanted = round(len(places) * options.liars)
    if options.liars > 0 and len(places) >= 20:
        wanted = max(wanted, len(LIARS))
    liars = rng.sample(candidates, min(wanted, len(candidates)))
    kinds = {index: LIARS[turn % len(LIARS)] for turn, index in enumerate(liars)}
    return tuple(replace(place, dead=place.index in dead, liar=kinds.get(place.index)) for place in places)
