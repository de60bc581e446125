"""The words and numbers by which every list of miners says what is not known or not special. Pure."""

from typing import Final

AUTO: Final = "auto"
"""The dialect of a miner whose firmware is to be found out."""
EXOTIC: Final = "exotic"
"""The dialect of a miner that the extra of that name reads."""
RPC_PORT: Final = 4028
"""CGMiner's API, and of whatever grew out of it."""
WEB_PORT: Final = 80
"""The web page; in a list it stands for the firmware's own port."""
