"""What one host showed when it was looked at. Pure."""

from dataclasses import dataclass

from agent.cgminer.observation import Observation


@dataclass(frozen=True, slots=True)
class Look:
    """What one host showed. ``observation`` is None where no miner answers; ``notes`` are for people.

    ``asked`` is False where this machine got nowhere, so that nothing is known of the host. ``opened_by`` says what to
    do about what the miner keeps closed to us, empty where it keeps nothing.
    """

    host: str
    port: int
    web_port: int
    observation: Observation | None
    notes: tuple[str, ...] = ()
    asked: bool = True
    opened_by: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the miner calls itself, lower-case; none where it says nothing."""
        return () if self.observation is None else self.observation.identities
