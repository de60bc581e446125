"""Infra, identity and hosting.

Written as SQL so that the revision stays what it was when the models move on; a test compares the two.
"""

from typing import Final

from alembic import op

from cloud.models.tenancy import APP_ROLE, isolate

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

_INFRA: Final = """
CREATE TABLE outbox_events (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    name text NOT NULL,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    parked_at timestamptz,
    last_error text,
    CONSTRAINT pk_outbox_events PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX ix_outbox_events_due ON outbox_events (tenant_id, due_at)
    WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE TABLE handled_events (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    handler text NOT NULL,
    handled_at timestamptz NOT NULL,
    CONSTRAINT pk_handled_events PRIMARY KEY (tenant_id, event_id, handler)
);
CREATE TABLE leases (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    holder text NOT NULL,
    token bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_leases PRIMARY KEY (tenant_id, name)
)
"""

_IDENTITY: Final = """
CREATE TABLE tenants (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_tenants PRIMARY KEY (tenant_id)
);
CREATE TABLE accounts (
    tenant_id uuid NOT NULL,
    account_id uuid NOT NULL,
    email text NOT NULL,
    password_hash text NOT NULL,
    role text NOT NULL,
    must_change boolean NOT NULL,
    failed_attempts integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    CONSTRAINT pk_accounts PRIMARY KEY (tenant_id, account_id),
    CONSTRAINT uq_accounts_tenant_id_email UNIQUE (tenant_id, email),
    CONSTRAINT fk_accounts_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id)
);
CREATE TABLE sessions (
    tenant_id uuid NOT NULL,
    session_hash bytea NOT NULL,
    account_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_sessions PRIMARY KEY (tenant_id, session_hash),
    CONSTRAINT fk_sessions_tenant_id_account_id FOREIGN KEY (tenant_id, account_id)
        REFERENCES accounts (tenant_id, account_id) ON DELETE CASCADE
);
CREATE TABLE agents (
    tenant_id uuid NOT NULL,
    agent_id text NOT NULL,
    site_id text NOT NULL,
    certificate_sha256 text NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_reason text,
    CONSTRAINT pk_agents PRIMARY KEY (tenant_id, agent_id)
);
CREATE INDEX ix_agents_site ON agents (tenant_id, site_id, issued_at);
CREATE TABLE join_tokens (
    tenant_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    site_id text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    agent_id text,
    CONSTRAINT pk_join_tokens PRIMARY KEY (tenant_id, token_hash)
)
"""

_HOSTING: Final = """
CREATE TABLE hosting_sites (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    name text NOT NULL,
    timezone text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_hosting_sites PRIMARY KEY (tenant_id, site_id),
    CONSTRAINT fk_hosting_sites_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id)
);
CREATE TABLE hosting_miners (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    miner_id text NOT NULL,
    dialect text NOT NULL,
    model text NOT NULL,
    feeder_id text NOT NULL,
    rack text NOT NULL,
    position integer NOT NULL,
    nameplate_w double precision,
    nameplate_ths double precision,
    controllable boolean NOT NULL,
    CONSTRAINT pk_hosting_miners PRIMARY KEY (tenant_id, site_id, miner_id),
    CONSTRAINT fk_hosting_miners_tenant_id_site_id FOREIGN KEY (tenant_id, site_id)
        REFERENCES hosting_sites (tenant_id, site_id)
);
CREATE TABLE hosting_meters (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    meter_id text NOT NULL,
    kind text NOT NULL,
    feeder_id text NOT NULL,
    CONSTRAINT pk_hosting_meters PRIMARY KEY (tenant_id, site_id, meter_id),
    CONSTRAINT fk_hosting_meters_tenant_id_site_id FOREIGN KEY (tenant_id, site_id)
        REFERENCES hosting_sites (tenant_id, site_id)
);
CREATE TABLE miner_telemetry (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    epoch text NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    count bigint NOT NULL,
    kind text NOT NULL,
    readings integer NOT NULL,
    read_from timestamptz,
    read_to timestamptz,
    sealed_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT pk_miner_telemetry PRIMARY KEY (tenant_id, site_id, epoch, first_seq)
);
ALTER TABLE miner_telemetry ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX ix_miner_telemetry_read ON miner_telemetry (tenant_id, site_id, read_from) WHERE readings > 0;
CREATE TABLE telemetry_quarantine (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    epoch text NOT NULL,
    first_seq bigint NOT NULL,
    digest text NOT NULL,
    count bigint NOT NULL,
    cause text NOT NULL,
    times bigint NOT NULL DEFAULT 1,
    received_at timestamptz NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT pk_telemetry_quarantine PRIMARY KEY (tenant_id, site_id, epoch, first_seq, digest)
);
CREATE TABLE telemetry_cursors (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    epoch text NOT NULL,
    through_seq bigint NOT NULL,
    CONSTRAINT pk_telemetry_cursors PRIMARY KEY (tenant_id, site_id, epoch)
);
CREATE TABLE site_latest (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    as_of timestamptz,
    data bytea NOT NULL,
    CONSTRAINT pk_site_latest PRIMARY KEY (tenant_id, site_id)
);
ALTER TABLE site_latest ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE meter_readings (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    meter_id text NOT NULL,
    read_at timestamptz NOT NULL,
    power_w double precision,
    energy_wh double precision,
    CONSTRAINT pk_meter_readings PRIMARY KEY (tenant_id, site_id, meter_id, read_at)
);
CREATE TABLE site_acks (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    ack_id text NOT NULL,
    order_id text NOT NULL,
    plan_revision bigint NOT NULL,
    miner_id text NOT NULL,
    verb text NOT NULL,
    outcome text NOT NULL,
    evidence text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    power_before_w double precision,
    power_after_w double precision,
    CONSTRAINT pk_site_acks PRIMARY KEY (tenant_id, site_id, ack_id)
);
CREATE INDEX ix_site_acks_order ON site_acks (tenant_id, site_id, order_id);
CREATE INDEX ix_site_acks_miner ON site_acks (tenant_id, site_id, miner_id, at);
CREATE TABLE site_notices (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    notice_id text NOT NULL,
    at timestamptz NOT NULL,
    code text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL,
    CONSTRAINT pk_site_notices PRIMARY KEY (tenant_id, site_id, notice_id)
);
CREATE INDEX ix_site_notices_at ON site_notices (tenant_id, site_id, at);
CREATE TABLE site_links (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    agent_id text NOT NULL,
    up boolean NOT NULL,
    connection_id text NOT NULL,
    last_heard timestamptz NOT NULL,
    plan_revision bigint NOT NULL,
    clock_trust text NOT NULL,
    backlog_batches bigint NOT NULL,
    backlog_bytes bigint NOT NULL,
    agent_version text NOT NULL,
    CONSTRAINT pk_site_links PRIMARY KEY (tenant_id, site_id)
);
CREATE TABLE order_sequences (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    signing_epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    CONSTRAINT pk_order_sequences PRIMARY KEY (tenant_id, site_id)
);
CREATE TABLE site_orders (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    signing_epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    order_id text NOT NULL,
    agent_id text NOT NULL,
    domain text NOT NULL,
    revision bigint NOT NULL,
    key_id text NOT NULL,
    payload bytea NOT NULL,
    signature bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_site_orders PRIMARY KEY (tenant_id, site_id, signing_epoch, sequence)
);
CREATE INDEX ix_site_orders_order ON site_orders (tenant_id, site_id, order_id)
"""

_TABLES: Final = (
    *("outbox_events", "handled_events", "leases"),
    *("tenants", "accounts", "sessions", "agents", "join_tokens"),
    *("hosting_sites", "hosting_miners", "hosting_meters", "miner_telemetry", "telemetry_quarantine"),
    *("telemetry_cursors", "site_latest", "meter_readings", "site_acks", "site_notices", "site_links"),
    *("order_sequences", "site_orders"),
)

# The one door across tenants: workers learn which tenants exist, by id, and nothing else.
_DIRECTORY: Final = (
    "CREATE POLICY directory ON tenants FOR SELECT TO CURRENT_USER USING (true)",
    """CREATE FUNCTION ballast_tenant_ids() RETURNS TABLE (tenant_id uuid)
       LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
       AS 'SELECT t.tenant_id FROM public.tenants t ORDER BY t.created_at, t.tenant_id'""",
    f"GRANT SELECT ON alembic_version TO {APP_ROLE}",
    "REVOKE ALL ON FUNCTION ballast_tenant_ids() FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION ballast_tenant_ids() TO {APP_ROLE}",
)


def upgrade() -> None:
    """Create the tables, isolate them, and open the directory of tenants."""
    for block in (_INFRA, _IDENTITY, _HOSTING):
        for statement in block.split(";\n"):
            op.execute(statement)
    for statement in (*isolate(*_TABLES), *_DIRECTORY):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything this revision made."""
    op.execute("DROP FUNCTION ballast_tenant_ids()")
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table} CASCADE")
