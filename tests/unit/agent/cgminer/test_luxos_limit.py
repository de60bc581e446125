"""A profile that a LuxOS miner refuses leaves its tuner as it was."""

import pytest

from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.luxos import LuxOs
from agent.errors import Permanent
from sitelink.types import Verb

OK = {"STATUS": [{"STATUS": "S", "Code": 1, "Msg": "ok"}]}
REFUSED = {"STATUS": [{"STATUS": "E", "Code": 1, "Msg": "profile cannot be applied: PSU limit"}]}


class Tuned:
    """A miner with its tuner on, as far as a limit asks for it."""

    address = "127.0.0.1:4028"

    def __init__(self) -> None:
        self.tunes = True

    def monotonic(self) -> float:
        return 0.0

    async def ask(self, command: str, parameter: str | None = None):
        if command == "atmset":
            self.tunes = "enabled=true" in (parameter or "")
        profiles = [{"Profile Name": name, "Step": step, "Watts": watts} for name, step, watts in PROFILES]
        return {
            "config": OK | {"CONFIG": [{"Profile": "default", "IsAtmEnabled": self.tunes, "CurtailMode": "None"}]},
            "atm": OK | {"ATM": [{"Enabled": self.tunes, "MaxProfile": "default"}]},
            "profiles": OK | {"PROFILES": profiles},
            "logon": OK | {"SESSION": [{"SessionID": "s1"}]},
            "profileset": REFUSED,
        }.get(command, OK)


PROFILES = (("default", "0", 3200), ("low", "-3", 2500))


async def test_a_refused_profile_leaves_the_tuner_on():
    miner, driver = Tuned(), LuxOs()
    wanted = Wanted(Verb.LIMIT, {"power_w": "2600"})
    former = await driver.former(miner, wanted)
    with pytest.raises(Permanent):
        await driver.send(miner, wanted, former)
    assert miner.tunes
