"""Planner and analytics."""

from typing import Final

from alembic import op

from cloud.models.tenancy import isolate

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None

_CREATE: Final = """
CREATE TABLE curtailment_signals (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    signal_id text NOT NULL,
    kind text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    cap_w double precision,
    received_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    CONSTRAINT pk_curtailment_signals PRIMARY KEY (tenant_id, site_id, signal_id)
);
CREATE TABLE curtailment_plans (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    revision bigint NOT NULL,
    plan_id text NOT NULL,
    status text NOT NULL,
    body jsonb NOT NULL,
    method text NOT NULL,
    reason text NOT NULL,
    objective_usd double precision NOT NULL,
    bound_usd double precision NOT NULL,
    gap double precision NOT NULL,
    valid_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_curtailment_plans PRIMARY KEY (tenant_id, site_id, revision)
);
CREATE UNIQUE INDEX ux_curtailment_plans_active ON curtailment_plans (tenant_id, site_id) WHERE status = 'active';
CREATE TABLE curtailment_plan_miners (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    revision bigint NOT NULL,
    curtailment_id text NOT NULL,
    place integer NOT NULL,
    miner_id text NOT NULL,
    CONSTRAINT pk_curtailment_plan_miners PRIMARY KEY (tenant_id, site_id, revision, curtailment_id, place)
);
CREATE TABLE curtailments (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    curtailment_id text NOT NULL,
    revision bigint NOT NULL,
    state text NOT NULL,
    cause text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    body jsonb NOT NULL,
    CONSTRAINT pk_curtailments PRIMARY KEY (tenant_id, site_id, curtailment_id)
);
CREATE INDEX ix_curtailments_end ON curtailments (tenant_id, site_id, end_at);
CREATE TABLE curtailment_verifications (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    curtailment_id text NOT NULL,
    revision integer NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    verified_mwh double precision,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    inputs text NOT NULL,
    body jsonb NOT NULL,
    verified_at timestamptz NOT NULL,
    CONSTRAINT pk_curtailment_verifications PRIMARY KEY (tenant_id, site_id, curtailment_id, revision)
);
CREATE TABLE market_analytics (
    tenant_id uuid NOT NULL,
    market text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    price_usd_per_mwh double precision NOT NULL,
    source text NOT NULL,
    published_at timestamptz NOT NULL,
    first_seen_at timestamptz NOT NULL,
    collected_at timestamptz NOT NULL,
    CONSTRAINT pk_market_analytics PRIMARY KEY (tenant_id, market, start_at)
);
CREATE INDEX ix_market_analytics_end ON market_analytics (tenant_id, market, end_at)
"""

_TABLES: Final = (
    *("curtailment_signals", "curtailment_plans", "curtailment_plan_miners", "curtailments"),
    *("curtailment_verifications", "market_analytics"),
)


def upgrade() -> None:
    """Create the tables and isolate them."""
    for statement in (*_CREATE.split(";\n"), *isolate(*_TABLES)):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything this revision made."""
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table} CASCADE")
