"""From what the site's operator wrote to the rules that local curtailment keeps."""

from agent.house_settings import CapSettings, HeatSettings, PriceSettings, RampSettings, RuleSettings
from agent.local_curtail.heat import HeatLimit, HeatRules
from agent.local_curtail.ramp import RampRules
from agent.local_curtail.silence import CapRule, DeadMeter, PriceRule, SilentRule, Steps, TemperatureRule


def heat_rules(heat: HeatSettings) -> HeatRules:
    """Return the rules about heat."""
    groups = {name: HeatLimit(board_c, chip_c, heat.cooled_by_c) for name, board_c, chip_c in heat.groups}
    return HeatRules(HeatLimit(heat.board_c, heat.chip_c, heat.cooled_by_c), groups, heat.rack_c)


def ramp_rules(ramp: RampSettings) -> RampRules:
    """Return how ramps are carried out."""
    times = (ramp.jitter_down, ramp.jitter_up, ramp.feedback_down_s, ramp.feedback_up_s)
    return RampRules(*times, frozenset(ramp.first_models), ramp.first_wait_s)


def silent_rule(rule: RuleSettings | None) -> SilentRule | None:
    """Return the site's own rule for silence, None where it has none."""
    if rule is None:
        return None
    if isinstance(rule, PriceSettings):
        return PriceRule(Steps(rule.steps), rule.unknown)
    if isinstance(rule, CapSettings):
        return CapRule(rule.cap_w, rule.back_by_w, rule.other_w, rule.settle_s, DeadMeter(rule.dead_meter))
    return TemperatureRule(Steps(rule.steps, rule.back_by_c), bool(rule.thermometer), rule.unknown)
