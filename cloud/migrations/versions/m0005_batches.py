"""Batches: who signed each, and the gaps that a site with a full buffer tells of."""

from typing import Final

from alembic import op

from cloud.models.tenancy import isolate

revision: Final = "0005"
down_revision: Final = "0006"
branch_labels: Final = None
depends_on: Final = None

_CREATE: Final = """
ALTER TABLE miner_telemetry ADD COLUMN signature bytea NOT NULL DEFAULT ''::bytea;
ALTER TABLE miner_telemetry ADD COLUMN key_id text NOT NULL DEFAULT '';
CREATE TABLE telemetry_gaps (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    epoch text NOT NULL,
    first_seq bigint NOT NULL,
    place integer NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    kept_every_s integer NOT NULL,
    items bigint NOT NULL,
    CONSTRAINT pk_telemetry_gaps PRIMARY KEY (tenant_id, site_id, epoch, first_seq, place)
);
CREATE INDEX ix_telemetry_gaps_since ON telemetry_gaps (tenant_id, site_id, since)
"""


def upgrade() -> None:
    """Add the columns, create the table and isolate it."""
    for statement in (*_CREATE.split(";\n"), *isolate("telemetry_gaps")):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything this revision made."""
    op.execute("DROP TABLE telemetry_gaps CASCADE")
    for column in ("signature", "key_id"):
        op.execute(f"ALTER TABLE miner_telemetry DROP COLUMN {column}")
