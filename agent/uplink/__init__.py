"""The link to the cloud: the port, its transports, and the choice between them.

    port   Uplink, Tls          grpc_link   over gRPC          mqtt_link   over a broker          choice   which of them

Invariant: importing this package imports no transport's library; ``choice`` loads the one it uses, when it uses it.
"""

from agent.uplink.port import Tls, Uplink

__all__ = ["Tls", "Uplink"]
