"""How the story puts what it saw into words. Pure."""

from collections.abc import Collection
from typing import Final

from cloud.cli.demo.watch import TrueMiner

_NAMED: Final = 6


def ahead(seconds: float) -> str:
    """Return when something happens that is ``seconds`` ahead; what is due or past happens now."""
    return f"in {seconds:.0f} s" if seconds >= 0.5 else "now"


def missing(miners: Collection[TrueMiner]) -> str:
    """Return which miners still run, each with its feeder; of many the first few and how many more."""
    first = sorted(miners, key=lambda miner: (miner.feeder_id, miner.miner_id))
    named = [f"{miner.miner_id} on {miner.feeder_id}" for miner in first[:_NAMED]]
    more = [f"{len(first) - _NAMED} more"] if len(first) > _NAMED else []
    return f"{len(first)} still running: {', '.join([*named, *more])}"
