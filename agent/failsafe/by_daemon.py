"""Has the living daemon do the work, and shows what it answers: so that nobody drives a miner twice.

    {"ask": "override", "id", "verb", "miners", "seconds"} --> say, miner, miner, ..., result
    {"ask": "release" | "look" | "figures" | "plan" | "journal" | "hello"} --> ..., result

Invariants: the same override id is taken once, so a request whose answer was lost may be sent again; what the daemon
says of a miner comes from its books, where a stop counts only when it was read back.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, BadInput, Refused, SessionBusy, TimedOut
from agent.failsafe.choice import Figures
from agent.failsafe.report import WANTED, doubted, progress_line, report
from agent.failsafe.sights import Around, Sight
from agent.findings import Finding, Proof, filled_in
from agent.local_socket import HUNG, NOT_KNOWN, Conversation, Garbage
from sitelink.inventory import MinerEntry
from sitelink.miners import AUTO
from sitelink.types import MinerState, Verb
from sitelink.units import TeraHashPerSecond, Watts

_EVERY_BEATS: Final = 5
"""The daemon beats each second: so often is said how far it is."""


class ByDaemon:
    """Speaks to the daemon of one ``state_dir``."""

    def __init__(self, state_dir: Path, fleet: tuple[MinerEntry, ...], say: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._fleet = {entry.miner_id: entry for entry in fleet}
        self._say = say

    def hello(self) -> Mapping[str, Any]:
        """Return what the daemon says of itself. Raises TimedOut when it is hung, Unreachable when nobody listens."""
        return self.ask({"ask": "hello"})

    def ask(
        self,
        request: Mapping[str, Any],
        heard: Callable[[Mapping[str, Any]], None] | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> Mapping[str, Any]:
        """Send ``request``, say and hand over what comes, and return its result.

        ``beat`` is called about each second meanwhile.

        Raises:
            TimedOut: the daemon is hung. Unreachable: it is not there, or went away.
            SessionBusy: too many ask at once. Refused: it says no.
        """
        conversation = Conversation(self._state_dir)
        try:
            for answer in conversation.ask(request, beat):
                if "say" in answer:
                    self._say(str(answer["say"]))
                elif "miner" in answer and heard is not None:
                    heard(answer)
                elif "error" in answer:
                    raise _failure(answer["error"])
                elif "result" in answer:
                    return _mapping(answer["result"])
        finally:
            conversation.close()
        raise Garbage("the daemon ended its answer without a result")

    def switch(
        self, verb: Verb, entries: Sequence[MinerEntry], duration: timedelta, order_id: str, *, everything: bool
    ) -> int:
        """Set an override and follow it until each miner is judged. Raises as ``ask``."""
        ids = [entry.miner_id for entry in entries]
        request = {
            "ask": "override",
            "id": order_id,
            "verb": verb.value,
            "miners": None if everything else ids,
            "seconds": duration.total_seconds(),
        }
        findings: dict[str, Finding] = {}

        def heard(answer: Mapping[str, Any]) -> None:
            finding = self._finding(answer)
            findings[finding.entry.miner_id] = finding

        try:
            self.ask(request, heard, _Progress(ids, findings, self._say).beat)
        except KeyboardInterrupt:
            self._say(
                f"interrupted: {len(findings)} of {len(ids)} miners are judged; the daemon goes on with the others: "
                "failsafe release ends its order"
            )
            raise
        rest = (Finding(entry, Proof.NO, NOT_KNOWN) for entry in entries)
        found = [findings.get(one.entry.miner_id, one) for one in rest]
        return report(found, doubted(found) if verb is Verb.STOP else (), WANTED[verb], self._say)

    def look(self, entries: Sequence[MinerEntry]) -> tuple[list[Sight], Around]:
        """Have the daemon look at ``entries`` now; return what it sees, and what it knows beside. Raises as ``ask``."""
        answers: dict[str, Mapping[str, Any]] = {}
        request = {"ask": "look", "miners": [entry.miner_id for entry in entries]}
        result = self.ask(request, lambda answer: answers.update({str(answer["miner"]): answer}))
        sights = [_sight(entry, answers.get(entry.miner_id, {})) for entry in entries]
        # A daemon of an earlier version tells no doubts.
        doubts = _mapping(result["doubts"]) if "doubts" in result else None
        return sights, Around(tuple(result.get("overrides", ())), doubts)

    def figures(self) -> tuple[dict[str, Figures], frozenset[str]]:
        """Return what the daemon last read of each miner, and whom it may or can not switch. Raises as ``ask``."""
        result = self.ask({"ask": "figures"})
        figures = {
            str(name): Figures(MinerState(state), _watts(power_w), _terahash(hashrate_ths))
            for name, (state, power_w, hashrate_ths) in _mapping(result.get("miners")).items()
        }
        return figures, frozenset(str(name) for name in result.get("fixed", ()))

    def release(self, miners: Sequence[str] | None) -> int:
        """End overrides, for ``miners`` or all. Raises as ``ask``."""
        result = self.ask({"ask": "release", "miners": None if miners is None else list(miners)})
        changed = [str(name) for name in result.get("released", ())]
        self._say(f"released: {', '.join(changed)}" if changed else "no override in force to release")
        self._say("the daemon takes these miners up by plan")
        return 0

    def _finding(self, answer: Mapping[str, Any]) -> Finding:
        name = str(answer["miner"])
        entry = self._fleet.get(name) or MinerEntry(name, "", 0, AUTO, "", "", "", 0, None, None)
        return Finding(
            entry,
            Proof(answer["proof"]),
            filled_in(str(answer["what"]), entry),
            _watts(answer.get("before_w")),
            _watts(answer.get("after_w")),
        )


def _sight(entry: MinerEntry, answer: Mapping[str, Any]) -> Sight:
    state = MinerState(answer.get("state", MinerState.UNKNOWN.value))
    return Sight(entry, state, str(answer.get("why", NOT_KNOWN)), _watts(answer.get("power_w")))


class _Progress:
    """Says every few seconds how far the daemon is, and whom it waits for."""

    def __init__(self, ids: Sequence[str], found: Mapping[str, Finding], say: Callable[[str], None]) -> None:
        self._ids = ids
        self._found = found
        self._say = say
        self._beats = 0

    def beat(self) -> None:
        """Count a second."""
        self._beats += 1
        if self._beats % _EVERY_BEATS == 0:
            self._say(progress_line(self._ids, self._found))


def _failure(error: object) -> AgentError:
    fields = _mapping(error)
    code, message = str(fields.get("code", "")), str(fields.get("message", error))
    if code == HUNG:
        return TimedOut(message)
    if code == "busy":
        return SessionBusy(message)
    return BadInput(message) if code == "bad_request" else Refused(code, message)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Garbage("the daemon's answer has another form than this command knows; is it of the same version?")
    return value


def _watts(value: object) -> Watts | None:
    return Watts(float(value)) if isinstance(value, int | float) else None


def _terahash(value: object) -> TeraHashPerSecond | None:
    return TeraHashPerSecond(float(value)) if isinstance(value, int | float) else None
