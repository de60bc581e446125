"""From what the site's operator wrote to the rules that local curtailment keeps."""

from agent.house_settings import HeatSettings
from agent.local_curtail.heat import HeatLimit, HeatRules


def heat_rules(heat: HeatSettings) -> HeatRules:
    """Return the rules about heat."""
    groups = {name: HeatLimit(board_c, chip_c, heat.cooled_by_c) for name, board_c, chip_c in heat.groups}
    return HeatRules(HeatLimit(heat.board_c, heat.chip_c, heat.cooled_by_c), groups, heat.rack_c)
