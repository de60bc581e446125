"""The rows of the matrix: what can go wrong, on which firmwares, and with which verbs.

Invariant: a fault names where it can occur; anywhere else its cell is a dash, never a copy of "no fault".
"""

from dataclasses import dataclass

from simulator.dialects import build_firmwares
from sitelink.types import Verb
from sitelink.verbs import ONCE
from tests.matrix.contactor import CONTACTOR, SILENT

SWITCHING = frozenset({Verb.STOP, Verb.START})
CHANGING = frozenset(Verb) - {Verb.LOGS}
DESIRED = frozenset(Verb) - ONCE
FIRMWARES = frozenset(build_firmwares())
EVERYWHERE = FIRMWARES | {CONTACTOR}
WITH_PAGES = frozenset(name for name, firmware in build_firmwares().items() if firmware.web is not None) | {CONTACTOR}
WHATSMINERS = frozenset({"whatsminer", "whatsminer-v3"})
WITH_TOKENS = FIRMWARES - {"avalon", "cgminer"}
"""Those that open with a password, to a token, a session or a nonce, and LuxOS with its session."""
IN_ITS_TIME = frozenset({"avalon", "whatsminer-v3"})
"""What these are told carries a moment of their own clock."""
WITHOUT_A_MOMENT = frozenset(("avalon", verb) for verb in CHANGING - SWITCHING)
"""On an Avalon, only a stop and a start do."""
OPEN_LOGS = frozenset((name, Verb.LOGS) for name in ("antminer", "braiins", "braiins-rest", "vnish", "whatsminer-v3"))
"""Logs that are read, not written, and need no right to write."""
WITHOUT_PASSWORD = frozenset(
    {
        *(("avalon", verb) for verb in (Verb.STOP, Verb.START, Verb.REBOOT, Verb.LIMIT, Verb.BLINK)),
        ("braiins", Verb.START),
        *((name, Verb.START) for name in ("braiins-rest", "vnish")),  # told with the token of the stop
        *((name, Verb.LOGS) for name in ("vnish", "whatsminer-v3")),
    }
)
"""What is told without a password."""


@dataclass(frozen=True)
class Fault:
    """A row. ``kind`` is the simulator's name, put on before the order or, with ``late``, when it is being sent.

    ``firmwares`` and ``verbs`` are those it can make a difference to; ``spared`` are the pairs of both it cannot. ``settles_s`` is how long it has lasted before the order.
    """

    title: str
    kind: str = ""
    late: bool = False
    hasty: bool = False
    killed: str = ""
    twice: bool = False
    firmwares: frozenset[str] = EVERYWHERE
    verbs: frozenset[Verb] = frozenset(Verb)
    spared: frozenset[tuple[str, Verb]] = frozenset()
    settles_s: float = 0.0

    def strikes(self, firmware: str, verb: Verb) -> bool:
        """Return whether the fault can occur there."""
        return firmware in self.firmwares and verb in self.verbs and (firmware, verb) not in self.spared


FAULTS = (
    Fault("no fault"),
    Fault("already as wanted", twice=True, verbs=DESIRED | {Verb.FIRMWARE}),  # a second reboot is another reboot
    Fault("dead", "dead"),
    Fault("accepts, never answers", "black_holed", hasty=True),
    Fault("slow drip", "slow_drip", hasty=True),
    Fault("garbage", "garbage:html"),
    Fault("does not even accept", "no_accept", hasty=True),
    Fault("hangs up", "hang_up"),
    Fault("resets the connection", "reset"),
    Fault("answers in pieces", "split_chunks"),
    Fault("answers 0.5 s late", "slow_reply:0.5", verbs=SWITCHING),
    Fault("answers end in NUL", "nul"),
    Fault("answers end in a newline", "newline"),
    Fault("answers end in nothing", "no_terminator"),
    Fault("dies as it is told", "dead", late=True),
    Fault("falls silent as it is told", "black_holed", late=True, hasty=True),
    Fault("hangs up as it is told", "hang_up", late=True),
    Fault("another miner answers", "wrong_identity"),
    Fault("another miner answers afterwards", "wrong_identity", late=True),
    Fault("access denied", "access_denied", firmwares=FIRMWARES, spared=OPEN_LOGS),
    Fault("wrong password", "bad_password", firmwares=FIRMWARES - {"luxos", "cgminer"}, spared=WITHOUT_PASSWORD),
    Fault(
        "session in other hands",
        "session_busy",
        firmwares=frozenset({"luxos"}),
        spared=frozenset({("luxos", Verb.POOLS)}),  # its pool commands need no session
    ),
    Fault(
        "tokens exhausted",
        "token_exhausted",
        firmwares=WHATSMINERS,
        spared=frozenset({("whatsminer", Verb.START), ("whatsminer-v3", Verb.LOGS)}),  # told with the stop's; with none
    ),
    Fault("its session outlives its logoff", "stuck_session", firmwares=frozenset({"luxos"})),
    Fault("tokens and sessions live 5 s", "expired_token", firmwares=WITH_TOKENS),
    Fault("server error", "server_error", firmwares=WITH_PAGES),
    Fault("effect after 10 s", "delayed", firmwares=FIRMWARES, verbs=CHANGING),
    Fault("figures refreshed every 10 s", "trailing_snapshot"),
    Fault("figures averaged over 10 s", "trailing_average"),
    Fault("the contactor does not answer", SILENT, firmwares=frozenset({CONTACTOR})),
    Fault("the contactor falls silent as it is told", SILENT, late=True, firmwares=frozenset({CONTACTOR})),
    Fault("says ok, does nothing", "ack_without_effect", verbs=CHANGING),
    Fault("goes on and reports idle once told", "reports_idle", verbs=frozenset({Verb.STOP})),
    Fault("goes on and has reported idle all along", "reports_idle_now", verbs=frozenset({Verb.STOP})),
    Fault("wakes by itself after 20 s", "self_waking", verbs=frozenset({Verb.STOP})),
    Fault("forgets its sleep with a reboot", "forgets_sleep", verbs=SWITCHING),
    Fault("keeps its sleep through a reboot", "keeps_sleep", verbs=SWITCHING),
    Fault("forgets its limit with a stop", "forgets_limit", verbs=SWITCHING),
    Fault(
        "half of the boards follow",
        "half_effect",
        firmwares=FIRMWARES,
        verbs=SWITCHING | {Verb.LIMIT},
        spared=frozenset({("avalon", Verb.LIMIT)}),  # its mode is in force with a restart, on all boards
    ),
    Fault(
        "overheated",
        "overheated",
        verbs=SWITCHING,
        spared=frozenset({(CONTACTOR, Verb.START)}),  # without power it has cooled down
        settles_s=60,
    ),
    Fault("overheats as it is told", "overheated", late=True, verbs=SWITCHING),
    Fault("its clock was never set", "clock_unset", firmwares=IN_ITS_TIME, verbs=CHANGING, spared=WITHOUT_A_MOMENT),
    Fault("we are killed before sending", killed="before"),
    Fault("we are killed after sending", killed="after"),
)
"""The firmwares that LuxOS and Whatsminer name in their faults are the only ones with one session, or with tokens that
run out; LuxOS has no password; only web pages have server errors."""
