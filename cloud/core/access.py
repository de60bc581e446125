"""Who is asking: a ``Principal`` goes with every unit of work, and row-level security backs it.

Invariant: a principal belongs to exactly one tenant; ``sites`` None means every site of that tenant.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from cloud.core.errors import Forbidden


class Role(StrEnum):
    """What kind of caller a principal is."""

    OWNER = "owner"
    ADMIN = "admin"
    HOST = "host"
    CLIENT = "client"
    GUEST = "guest"
    AGENT = "agent"
    SYSTEM = "system"


class Permission(StrEnum):
    """What a role may do; what is not listed for a role is denied."""

    READ_FLEET = "read_fleet"
    MANAGE_SITES = "manage_sites"
    ORDER_MINERS = "order_miners"
    READ_BILLING = "read_billing"
    MANAGE_BILLING = "manage_billing"
    REPORT_TELEMETRY = "report_telemetry"


_READ: Final = frozenset({Permission.READ_FLEET, Permission.READ_BILLING})
_OPERATE: Final = _READ | {Permission.MANAGE_SITES, Permission.ORDER_MINERS, Permission.MANAGE_BILLING}

PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.OWNER: frozenset(_OPERATE),
    Role.ADMIN: frozenset(_OPERATE),
    Role.HOST: frozenset({Permission.READ_FLEET, Permission.ORDER_MINERS}),
    Role.CLIENT: frozenset(_READ),
    Role.GUEST: frozenset({Permission.READ_FLEET}),
    Role.AGENT: frozenset({Permission.REPORT_TELEMETRY}),
    Role.SYSTEM: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller of one tenant; ``actor`` names it in logs, such as ``account:4f..`` or ``agent:pecos-1-..``."""

    tenant_id: UUID
    actor: str
    role: Role
    sites: frozenset[str] | None = None

    def may(self, permission: Permission) -> bool:
        """Return whether the role holds ``permission``."""
        return permission in PERMISSIONS[self.role]

    def sees(self, site_id: str) -> bool:
        """Return whether ``site_id`` is in scope."""
        return self.sites is None or site_id in self.sites

    def require(self, permission: Permission, site_id: str | None = None) -> None:
        """Raise ``Forbidden`` unless the role holds ``permission`` and ``site_id`` (when given) is in scope."""
        if not self.may(permission):
            raise Forbidden(f"{self.actor} ({self.role.value}) may not {permission.value}")
        if site_id is not None and not self.sees(site_id):
            raise Forbidden(f"{self.actor} may not act for site {site_id}")


def system_principal(tenant_id: UUID, actor: str = "system") -> Principal:
    """Return the principal under which workers act for ``tenant_id``."""
    return Principal(tenant_id, actor, Role.SYSTEM)
