"""From what the site's operator wrote to the rules that local curtailment keeps."""

from agent.house_settings import CapSettings, HeatSettings, PriceSettings, RampSettings, RuleSettings
from agent.local_curtail.heat import HeatLimit, HeatRules
from agent.local_curtail.ramp import RampRules
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.silence import CapRule, DeadMeter, PriceRule, SilentRule, Steps, TemperatureRule
from agent.settings import Settings
from sitelink.inventory import MinerEntry


def site_rules(settings: Settings, agent_id: str, never_touch: frozenset[str]) -> SiteRules:
    """Return who this site is and what may be done to its miners; nobody touches ``never_touch``."""
    limits, control = settings.limits, settings.control
    return SiteRules(
        site_id=settings.site.site_id,
        agent_id=agent_id,
        never_touch=never_touch,
        max_off_s=limits.max_off_s,
        max_step_w=limits.max_step_w,
        fallback=settings.fallback.mode,
        grace_s=settings.fallback.grace_s,
        concurrency=control.concurrency,
        device_deadline_s=control.device_deadline_s,
        idle_share=control.idle_share,
        max_per_min_w=limits.max_per_min_w,
        allowed_verbs=limits.allowed_verbs,
        min_load_w=limits.min_load_w,
        heat=heat_rules(limits.heat),
        silence=silent_rule(settings.fallback.rule),
        ramps=ramp_rules(settings.ramp),
    )


def site_miner(entry: MinerEntry, *, controllable: bool) -> SiteMiner:
    """Return a miner of the inventory as local curtailment knows it."""
    place = (entry.feeder_id, entry.nameplate_w, controllable, entry.rack)
    return SiteMiner(entry.miner_id, *place, entry.model, entry.nameplate_ths)


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
