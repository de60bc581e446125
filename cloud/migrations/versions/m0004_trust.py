"""Trust: every certificate an agent was given, keys that await an operator's word, and who speaks on a link."""

from typing import Final

from alembic import op

from cloud.models.tenancy import isolate

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None

_CREATE: Final = """
ALTER TABLE agents ADD COLUMN generation bigint NOT NULL DEFAULT 1;
ALTER TABLE join_tokens ADD COLUMN needs_approval boolean NOT NULL DEFAULT false;
ALTER TABLE site_links ADD COLUMN instance_id text NOT NULL DEFAULT '';
CREATE TABLE agent_certificates (
    tenant_id uuid NOT NULL,
    agent_id text NOT NULL,
    generation bigint NOT NULL,
    certificate_sha256 text NOT NULL,
    key_sha256 text NOT NULL,
    certificate_pem bytea NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    reissued boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_agent_certificates PRIMARY KEY (tenant_id, agent_id, generation),
    CONSTRAINT fk_agent_certificates_tenant_id_agent_id FOREIGN KEY (tenant_id, agent_id)
        REFERENCES agents (tenant_id, agent_id)
);
CREATE TABLE enrolment_requests (
    tenant_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    site_id text NOT NULL,
    agent_id text NOT NULL,
    fingerprint text NOT NULL,
    asked_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_at timestamptz,
    decided_by text,
    approved boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_enrolment_requests PRIMARY KEY (tenant_id, token_hash),
    CONSTRAINT fk_enrolment_requests_tenant_id_token_hash FOREIGN KEY (tenant_id, token_hash)
        REFERENCES join_tokens (tenant_id, token_hash)
)
"""

_TABLES: Final = ("agent_certificates", "enrolment_requests")


def upgrade() -> None:
    """Add the columns, create the tables and isolate them."""
    for statement in (*_CREATE.split(";\n"), *isolate(*_TABLES)):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything this revision made."""
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table} CASCADE")
    for table, column in (("agents", "generation"), ("join_tokens", "needs_approval"), ("site_links", "instance_id")):
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
