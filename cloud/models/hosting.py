"""Tables of ``cloud.hosting``: sites and their inventory, the telemetry store, what sites report, orders to them.

Invariants: one row a batch, unique on (tenant, site, epoch, first_seq); addresses of devices are never stored here.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Text,
    text,
)

from cloud.models.base import moment, tenant_table

HOSTING_SITES: Final = tenant_table(
    "hosting_sites",
    Column("site_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    moment("created_at"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

HOSTING_MINERS: Final = tenant_table(
    "hosting_miners",
    Column("site_id", Text, primary_key=True),
    Column("miner_id", Text, primary_key=True),
    Column("dialect", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("feeder_id", Text, nullable=False),
    Column("rack", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("nameplate_w", Double),
    Column("nameplate_ths", Double),
    Column("controllable", Boolean, nullable=False),
    ForeignKeyConstraint(["tenant_id", "site_id"], ["hosting_sites.tenant_id", "hosting_sites.site_id"]),
)

HOSTING_METERS: Final = tenant_table(
    "hosting_meters",
    Column("site_id", Text, primary_key=True),
    Column("meter_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("feeder_id", Text, nullable=False),
    ForeignKeyConstraint(["tenant_id", "site_id"], ["hosting_sites.tenant_id", "hosting_sites.site_id"]),
)

MINER_TELEMETRY: Final = tenant_table(
    "miner_telemetry",
    Column("site_id", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("readings", Integer, nullable=False),
    moment("read_from", nullable=True),
    moment("read_to", nullable=True),
    moment("sealed_at"),
    moment("received_at"),
    Column("payload", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False, server_default=text("''::bytea")),
    Column("key_id", Text, nullable=False, server_default=text("''")),
)
Index(
    "ix_miner_telemetry_read",
    MINER_TELEMETRY.c.tenant_id,
    MINER_TELEMETRY.c.site_id,
    MINER_TELEMETRY.c.read_from,
    postgresql_where=text("readings > 0"),
)

TELEMETRY_GAPS: Final = tenant_table(
    "telemetry_gaps",
    Column("site_id", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("place", Integer, primary_key=True),
    moment("since"),
    moment("until"),
    Column("kept_every_s", Integer, nullable=False),
    Column("items", BigInteger, nullable=False),
)
Index(
    "ix_telemetry_gaps_since",
    TELEMETRY_GAPS.c.tenant_id,
    TELEMETRY_GAPS.c.site_id,
    TELEMETRY_GAPS.c.since,
)

TELEMETRY_QUARANTINE: Final = tenant_table(
    "telemetry_quarantine",
    Column("site_id", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("times", BigInteger, nullable=False, server_default=text("1")),
    moment("received_at"),
    Column("payload", LargeBinary, nullable=False),
)

TELEMETRY_CURSORS: Final = tenant_table(
    "telemetry_cursors",
    Column("site_id", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("through_seq", BigInteger, nullable=False),
)

SITE_LATEST: Final = tenant_table(
    "site_latest",
    Column("site_id", Text, primary_key=True),
    moment("as_of", nullable=True),
    Column("data", LargeBinary, nullable=False),
)

METER_READINGS: Final = tenant_table(
    "meter_readings",
    Column("site_id", Text, primary_key=True),
    Column("meter_id", Text, primary_key=True),
    moment("read_at", primary_key=True),
    Column("power_w", Double, nullable=True),
    Column("energy_wh", Double, nullable=True),
)

SITE_ACKS: Final = tenant_table(
    "site_acks",
    Column("site_id", Text, primary_key=True),
    Column("ack_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("plan_revision", BigInteger, nullable=False),
    Column("miner_id", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("reason", Text, nullable=False),
    moment("at"),
    Column("power_before_w", Double, nullable=True),
    Column("power_after_w", Double, nullable=True),
)
Index("ix_site_acks_order", SITE_ACKS.c.tenant_id, SITE_ACKS.c.site_id, SITE_ACKS.c.order_id)
Index("ix_site_acks_miner", SITE_ACKS.c.tenant_id, SITE_ACKS.c.site_id, SITE_ACKS.c.miner_id, SITE_ACKS.c["at"])

SITE_NOTICES: Final = tenant_table(
    "site_notices",
    Column("site_id", Text, primary_key=True),
    Column("notice_id", Text, primary_key=True),
    moment("at"),
    Column("code", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
Index("ix_site_notices_at", SITE_NOTICES.c.tenant_id, SITE_NOTICES.c.site_id, SITE_NOTICES.c["at"])

SITE_LINKS: Final = tenant_table(
    "site_links",
    Column("site_id", Text, primary_key=True),
    Column("agent_id", Text, nullable=False),
    Column("up", Boolean, nullable=False),
    Column("connection_id", Text, nullable=False),
    moment("last_heard"),
    Column("plan_revision", BigInteger, nullable=False),
    Column("clock_trust", Text, nullable=False),
    Column("backlog_batches", BigInteger, nullable=False),
    Column("backlog_bytes", BigInteger, nullable=False),
    Column("agent_version", Text, nullable=False),
    Column("instance_id", Text, nullable=False, server_default=text("''")),
)

ORDER_SEQUENCES: Final = tenant_table(
    "order_sequences",
    Column("site_id", Text, primary_key=True),
    Column("signing_epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)

SITE_ORDERS: Final = tenant_table(
    "site_orders",
    Column("site_id", Text, primary_key=True),
    Column("signing_epoch", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    moment("expires_at"),
    moment("created_at"),
)
Index("ix_site_orders_order", SITE_ORDERS.c.tenant_id, SITE_ORDERS.c.site_id, SITE_ORDERS.c.order_id)

SITE_JOURNAL: Final = tenant_table(
    "site_journal",
    Column("site_id", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("hash", LargeBinary, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("trust", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    moment("received_at"),
)

SITE_JOURNAL_CHAINS: Final = tenant_table(
    "site_journal_chains",
    Column("site_id", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("first_seq", BigInteger, nullable=True),
    Column("through_seq", BigInteger, nullable=True),
    Column("through_hash", LargeBinary, nullable=True),
    moment("heard_at"),
)

SITE_JOURNAL_FAULTS: Final = tenant_table(
    "site_journal_faults",
    Column("site_id", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("fault", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    moment("seen_at"),
    moment("mended_at", nullable=True),
)
