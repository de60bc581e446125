"""The miners that the doctor's other looks speak of, as far as their list can be read."""

from agent.errors import BadInput
from agent.inventory import load_usable
from agent.settings import Settings
from sitelink.inventory import MinerEntry


def listed(settings: Settings) -> dict[str, MinerEntry]:
    """Return the site's miners by id, none where their list cannot be read."""
    try:
        entries, _ = load_usable(settings.site.inventory)
    except BadInput:
        return {}  # what is wrong with the list stands under inventory
    return {entry.miner_id: entry for entry in entries}
