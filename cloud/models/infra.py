"""Tables of ``cloud.infra``: the outbox, what its handlers have done, and leases."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from cloud.models.base import moment, tenant_table

OUTBOX_EVENTS: Final = tenant_table(
    "outbox_events",
    Column("event_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    moment("created_at"),
    moment("due_at"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    moment("delivered_at", nullable=True),
    moment("parked_at", nullable=True),
    Column("last_error", Text, nullable=True),
)
Index(
    "ix_outbox_events_due",
    OUTBOX_EVENTS.c.tenant_id,
    OUTBOX_EVENTS.c.due_at,
    postgresql_where=text("delivered_at IS NULL AND parked_at IS NULL"),
)

HANDLED_EVENTS: Final = tenant_table(
    "handled_events",
    Column("event_id", Uuid, primary_key=True),
    Column("handler", Text, primary_key=True),
    moment("handled_at"),
)

LEASES: Final = tenant_table(
    "leases",
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    moment("expires_at"),
)
