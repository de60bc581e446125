"""The configured transports of the link, each made when it is first used.

Invariant: a transport's library is imported by the function that makes it, and by nothing before.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.errors import BadInput
from agent.files import next_step
from agent.identity import Identity
from agent.settings import LinkSettings
from agent.uplink import Uplink
from agent.uplink.choice import Choice, Way, check_installed
from sitelink.brokered import Topics
from sitelink.clock import Clock
from sitelink.signing import KeyRing

_LONGEST_WAIT_S: Final = 15.0


def uplink_of(link: LinkSettings, identity: Identity, clock: Clock, ids: Callable[[], str]) -> Choice:
    """Return the link by the transports that ``link`` names.

    Raises:
        BadInput: one is not installed, or ``ca_file`` cannot be read.
    """
    check_installed(link.transports)
    more_ca_pem = "" if link.ca_file is None else _read(link.ca_file)
    deadline_s = min(_LONGEST_WAIT_S, max(2.0, 3 * link.heartbeat_s))

    def by_grpc() -> Uplink:
        from agent.uplink.grpc_link import GrpcUplink  # noqa: PLC0415 - imported only where it is used

        return GrpcUplink(
            link.endpoint,
            identity.tls,
            link.server_name,
            deadline_s=deadline_s,
            keepalive_s=max(10.0, 2 * link.heartbeat_s),
            proxy=link.proxy,
            more_ca_pem=more_ca_pem,
        )

    def by_mqtt() -> Uplink:
        from agent.uplink.mqtt_link import MqttUplink  # noqa: PLC0415 - imported only where it is used

        assert link.mqtt_endpoint is not None
        return MqttUplink(
            link.mqtt_endpoint,
            identity.tls,
            Topics(identity.tenant_id, identity.site_id, identity.agent_id),
            KeyRing(identity.time_keys),
            ids,
            clock.now,
            server_name=link.mqtt_server_name,
            deadline_s=deadline_s,
            heartbeat_s=link.heartbeat_s,
            proxy=link.proxy,
            more_ca_pem=more_ca_pem,
        )

    made = {"grpc": by_grpc, "mqtt": by_mqtt}
    return Choice([Way(name, made[name]) for name in link.transports], clock)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError as error:
        raise BadInput(f"[link] ca_file: {path} cannot be read: {error.strerror}; {next_step(error)}") from None
    except UnicodeDecodeError:
        raise BadInput(f"[link] ca_file: {path} is not PEM; write certificates in PEM") from None
