"""The sites' journals: hash-chained entries that nobody can change, how far each chain is whole, what does not fit."""

from typing import Final

from alembic import op

from cloud.models.tenancy import APP_ROLE, isolate

revision: Final = "0006"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None

_CREATE: Final = """
CREATE TABLE site_journal (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    chain text NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    at_us bigint NOT NULL,
    trust text NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL,
    previous bytea NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT pk_site_journal PRIMARY KEY (tenant_id, site_id, chain, seq, hash)
);
CREATE TABLE site_journal_chains (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    chain text NOT NULL,
    first_seq bigint,
    through_seq bigint,
    through_hash bytea,
    heard_at timestamptz NOT NULL,
    CONSTRAINT pk_site_journal_chains PRIMARY KEY (tenant_id, site_id, chain)
);
CREATE TABLE site_journal_faults (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    chain text NOT NULL,
    seq bigint NOT NULL,
    fault text NOT NULL,
    detail text NOT NULL,
    seen_at timestamptz NOT NULL,
    mended_at timestamptz,
    CONSTRAINT pk_site_journal_faults PRIMARY KEY (tenant_id, site_id, chain, seq, fault)
)
"""

_TABLES: Final = ("site_journal", "site_journal_chains", "site_journal_faults")

_APPEND_ONLY: Final = (
    """CREATE FUNCTION ballast_refuse_journal_change() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         RAISE EXCEPTION 'the journal is append-only' USING ERRCODE = 'integrity_constraint_violation';
       END $$""",
    """CREATE TRIGGER journal_is_append_only BEFORE UPDATE OR DELETE ON site_journal
       FOR EACH ROW EXECUTE FUNCTION ballast_refuse_journal_change()""",
    f"REVOKE UPDATE, DELETE ON site_journal FROM {APP_ROLE}",
    f"REVOKE DELETE ON site_journal_faults FROM {APP_ROLE}",
)


def upgrade() -> None:
    """Create the tables, isolate them, and make entries immutable."""
    for statement in (*_CREATE.split(";\n"), *isolate(*_TABLES), *_APPEND_ONLY):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything this revision made."""
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table} CASCADE")
    op.execute("DROP FUNCTION ballast_refuse_journal_change()")
