"""What LuxOS changes under a session: profiles, ATM, lamp, reboot, update.

Invariants: a profile is chosen by its name, its step (``+1``, ``-2``) or its watts (``2500W``: the strongest that draws
no more); while ATM (the automatic temperature mode) runs, it takes a profile back at once, and the reply does not say
so.

Source: docs.luxor.tech, "profileset", "atmset", "curtail"; reference captures of a S19k Pro.
"""

from collections.abc import Callable

from simulator import noise
from simulator.dialects.rpc import Row, Section
from simulator.miner import Miner
from sitelink.types import Verb
from sitelink.units import Watts

_DEFAULT = "default"
_FREQUENCY, _FREQUENCY_STEP = 590, 25
_STEPS = range(-12, 3)
_POWER_A_STEP = 0.05
_LAMPS = ("on", "off", "blink", "auto")
_ATM_KEYS = frozenset(
    {"enabled", "startup_minutes", "post_ramp_minutes", "temp_window", "min_profile", "max_profile", "prevent_oc"}
)
_NEXT_VERSION = "2025.10.1.120000"
Arguments = list[str]


def profiles_of(miner: Miner) -> list[Row]:
    """Return every profile of the model, the weakest first."""
    model = miner.place.model
    return [
        {
            "CanRestore": True,
            "Frequency": _FREQUENCY + step * _FREQUENCY_STEP,
            "HasOverrides": False,
            "Hashrate": round(model.nameplate_ths * (1 + _POWER_A_STEP * step), 1),
            "IsDynamic": True,
            "IsTuned": False,
            "Profile Name": _DEFAULT if step == 0 else f"{_FREQUENCY + step * _FREQUENCY_STEP}MHz",
            "Step": str(step),
            "Voltage": round(13.5 + step * 0.1, 2),
            "Watts": round(model.nameplate_w * (1 + _POWER_A_STEP * step)),
        }
        for step in _STEPS
    ]


def profile_name(miner: Miner) -> str:
    """Return the name of the profile in use."""
    return str(miner.kept.more.get("profile", _DEFAULT))


def atm_enabled(miner: Miner) -> bool:
    """Return whether ATM runs; it does on every other miner as it is set up."""
    return bool(miner.kept.more.get("atm", noise.key("atm", miner.place.miner_id) % 2 == 0))


def atm_row(miner: Miner) -> Row:
    """Return ATM's settings."""
    return {
        "ChipTempWindow": 8.0,
        "Enabled": atm_enabled(miner),
        "MaxProfile": miner.kept.more.get("max_profile", _DEFAULT),
        "MinProfile": miner.kept.more.get("min_profile", ""),
        "PostRampMinutes": 15,
        "StartupMinutes": 15,
        "TempWindow": 5.0,
    }


def write(miner: Miner, command: str, arguments: Arguments) -> Section | None:
    """Return the answer to a command that came with a living session; None when there is no such command."""
    do = _WRITES.get(command)
    return None if do is None else do(miner, arguments)


def is_write(command: str) -> bool:
    """Return whether ``command`` changes something and wants a session."""
    return command in _WRITES


def _profileset(miner: Miner, arguments: Arguments) -> Section:
    wanted = [argument for argument in arguments if argument not in {"0", "1", "2", "3"}]
    profile = _find(miner, wanted[0] if wanted else "")
    if profile is None:
        return Section(322, "Profile not found", letter="E")
    name, watts = str(profile["Profile Name"]), Watts(profile["Watts"])
    if atm_enabled(miner):
        miner.ignore(Verb.LIMIT, profile=name, power_w=watts, why="atm")
    else:
        miner.limit(None if name == _DEFAULT else watts, profile=name)
        if not miner.has("ack_without_effect"):
            miner.kept.more["profile"] = name
    row: Row = {"Board": 0, "FrequencyStep": 5, "Profile": name, "VoltageStep": 0.05}
    return Section(321, "Profile Set", "PROFILE", (row,))


def _find(miner: Miner, wanted: str) -> Row | None:
    profiles = profiles_of(miner)
    if wanted.startswith(("+", "-")):
        now = next(place for place, row in enumerate(profiles) if row["Profile Name"] == profile_name(miner))
        place = now + int(wanted) if wanted[1:].isdecimal() else -1
        return profiles[place] if 0 <= place < len(profiles) else None
    watts = _watts(wanted)
    if watts is not None:
        within = [row for row in profiles if row["Watts"] <= watts]
        return within[-1] if within else None
    return next((row for row in profiles if row["Profile Name"] == wanted), None)


def _watts(text: str) -> float | None:
    factor = 1000.0 if text.endswith("kW") else 1.0
    plain = text.removesuffix("kW").removesuffix("W")
    try:
        return float(plain) * factor if plain != text else None
    except ValueError:
        return None


def _atmset(miner: Miner, arguments: Arguments) -> Section:
    pairs = [argument.partition("=") for argument in arguments]
    known = {
        "enabled",
        "startup_minutes",
        "post_ramp_minutes",
        "temp_window",
        "min_profile",
        "max_profile",
        "prevent_oc",
    }
    if not pairs or any(name not in known for name, _, _ in pairs):
        return Section(341, "Invalid ATM configuration", letter="E")
    enabled = next((value for name, _, value in pairs if name == "enabled"), None)
    if enabled not in {None, "true", "false"}:
        return Section(341, "Invalid ATM configuration", letter="E")
    if not miner.has("ack_without_effect"):
        bounds = {name: value for name, _, value in pairs if name in {"min_profile", "max_profile"}}
        miner.kept.more |= bounds if enabled is None else {**bounds, "atm": enabled == "true"}
    return Section(340, "ATM configuration set", "ATM", (atm_row(miner),))


def _ledset(miner: Miner, arguments: Arguments) -> Section:
    colour, state = [*arguments, "", ""][:2]
    if colour not in {"red", "green"} or state not in _LAMPS:
        return Section(349, "Invalid LED or state", letter="E")
    on = state in {"on", "blink"}
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return Section(348, "LED set", "LED", ({"Led": colour, "State": state},))


def _rebootdevice(miner: Miner, _arguments: Arguments) -> Section:
    miner.reboot()
    return Section(305, "Reboot Scheduled", "REBOOT", ({"Board": -1, "IsShutdown": False},))


def _resetminer(miner: Miner, _arguments: Arguments) -> Section:
    miner.reboot(Verb.REBOOT, 10.0, only="luxminer")
    return Section(306, "Reset scheduled")


def _updaterun(miner: Miner, _arguments: Arguments) -> Section:
    miner.install(_NEXT_VERSION, "", 0)
    return Section(333, "Update check triggered")


_WRITES: dict[str, Callable[[Miner, Arguments], Section]] = {
    "profileset": _profileset,
    "atmset": _atmset,
    "ledset": _ledset,
    "rebootdevice": _rebootdevice,
    "resetminer": _resetminer,
    "updaterun": _updaterun,
}
