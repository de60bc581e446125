import uuid

import pytest

from cloud.core.access import Permission, Principal, Role, system_principal
from cloud.core.errors import Forbidden, Permanent
from cloud.core.events import CATALOGUE, CurtailmentVerified, PlanActivated, from_json

TENANT = uuid.uuid4()


def test_events_survive_json() -> None:
    for event in (PlanActivated("pecos-1", 3, "p3"), CurtailmentVerified("pecos-1", "c1", 1.25)):
        assert from_json(event.name, event.to_json()) == event
    assert all(kind.name == name for name, kind in CATALOGUE.items())


@pytest.mark.parametrize(("name", "body"), [("unheard_of", {}), ("plan_activated", {"site_id": "x"})])
def test_events_of_another_version_are_refused(name: str, body: dict[str, str]) -> None:
    with pytest.raises(Permanent):
        from_json(name, body)


def test_an_agent_reports_for_its_own_site_only() -> None:
    agent = Principal(TENANT, "agent:a", Role.AGENT, frozenset({"pecos-1"}))
    agent.require(Permission.REPORT_TELEMETRY, "pecos-1")
    with pytest.raises(Forbidden):
        agent.require(Permission.REPORT_TELEMETRY, "pecos-2")
    with pytest.raises(Forbidden):
        agent.require(Permission.ORDER_MINERS, "pecos-1")


def test_a_guest_reads_and_the_system_does_everything() -> None:
    guest = Principal(TENANT, "account:g", Role.GUEST)
    assert [permission for permission in Permission if guest.may(permission)] == [Permission.READ_FLEET]
    assert all(system_principal(TENANT).may(permission) for permission in Permission)
