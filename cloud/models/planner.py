"""Tables of ``cloud.planner``: signals, plan revisions, the curtailments they order, and what was verified.

Invariants: one revision of a site is active at a time (a partial unique index); a verification is never overwritten,
late data adds a revision.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from cloud.models.base import moment, tenant_table

CURTAILMENT_SIGNALS: Final = tenant_table(
    "curtailment_signals",
    Column("site_id", Text, primary_key=True),
    Column("signal_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    moment("start_at"),
    moment("end_at"),
    Column("cap_w", Double, nullable=True),
    moment("received_at"),
    moment("withdrawn_at", nullable=True),
)

CURTAILMENT_PLANS: Final = tenant_table(
    "curtailment_plans",
    Column("site_id", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("plan_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    Column("method", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("objective_usd", Double, nullable=False),
    Column("bound_usd", Double, nullable=False),
    Column("gap", Double, nullable=False),
    moment("valid_until"),
    moment("created_at"),
)
Index(
    "ux_curtailment_plans_active",
    CURTAILMENT_PLANS.c.tenant_id,
    CURTAILMENT_PLANS.c.site_id,
    unique=True,
    postgresql_where=text("status = 'active'"),
)

CURTAILMENT_PLAN_MINERS: Final = tenant_table(
    "curtailment_plan_miners",
    Column("site_id", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("curtailment_id", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("miner_id", Text, nullable=False),
)

CURTAILMENTS: Final = tenant_table(
    "curtailments",
    Column("site_id", Text, primary_key=True),
    Column("curtailment_id", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("cause", Text, nullable=False),
    moment("start_at"),
    moment("end_at"),
    Column("body", JSONB, nullable=False),
)
Index("ix_curtailments_end", CURTAILMENTS.c.tenant_id, CURTAILMENTS.c.site_id, CURTAILMENTS.c.end_at)

CURTAILMENT_VERIFICATIONS: Final = tenant_table(
    "curtailment_verifications",
    Column("site_id", Text, primary_key=True),
    Column("curtailment_id", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("verified_mwh", Double, nullable=True),
    moment("start_at"),
    moment("end_at"),
    Column("inputs", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    moment("verified_at"),
)
