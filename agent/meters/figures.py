"""What one look at a meter tells. Pure."""

from typing import NamedTuple

from sitelink.units import Watts


class Figures(NamedTuple):
    """Total active power, and imported energy where the meter counts it; unknown is None.

    ``unsaid`` says why a figure that the meter has is unknown at this moment, empty where none is.
    """

    power_w: Watts | None
    energy_wh: float | None = None
    unsaid: str = ""
