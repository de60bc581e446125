"""Tables of ``cloud.identity``: tenants, accounts, sessions, agents with their certificates, and join tokens."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from cloud.models.base import moment, tenant_table

TENANTS: Final = tenant_table("tenants", Column("name", Text, nullable=False), moment("created_at"))

ACCOUNTS: Final = tenant_table(
    "accounts",
    Column("account_id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("must_change", Boolean, nullable=False),
    Column("failed_attempts", Integer, nullable=False, server_default=text("0")),
    moment("locked_until", nullable=True),
    moment("created_at"),
    moment("disabled_at", nullable=True),
    UniqueConstraint("tenant_id", "email"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

SESSIONS: Final = tenant_table(
    "sessions",
    Column("session_hash", LargeBinary, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    moment("created_at"),
    moment("last_seen_at"),
    moment("expires_at"),
    ForeignKeyConstraint(
        ["tenant_id", "account_id"], ["accounts.tenant_id", "accounts.account_id"], ondelete="CASCADE"
    ),
)

AGENTS: Final = tenant_table(
    "agents",
    Column("agent_id", Text, primary_key=True),
    Column("site_id", Text, nullable=False),
    Column("certificate_sha256", Text, nullable=False),
    moment("issued_at"),
    moment("expires_at"),
    moment("revoked_at", nullable=True),
    Column("revoked_reason", Text, nullable=True),
    Column("generation", BigInteger, nullable=False, server_default=text("1")),
)
Index("ix_agents_site", AGENTS.c.tenant_id, AGENTS.c.site_id, AGENTS.c.issued_at)

JOIN_TOKENS: Final = tenant_table(
    "join_tokens",
    Column("token_hash", LargeBinary, primary_key=True),
    Column("site_id", Text, nullable=False),
    moment("created_at"),
    moment("expires_at"),
    moment("used_at", nullable=True),
    Column("agent_id", Text, nullable=True),
    Column("needs_approval", Boolean, nullable=False, server_default=text("false")),
)

AGENT_CERTIFICATES: Final = tenant_table(
    "agent_certificates",
    Column("agent_id", Text, primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("certificate_sha256", Text, nullable=False),
    Column("key_sha256", Text, nullable=False),
    Column("certificate_pem", LargeBinary, nullable=False),
    moment("issued_at"),
    moment("expires_at"),
    moment("confirmed_at", nullable=True),
    Column("reissued", Boolean, nullable=False, server_default=text("false")),
    ForeignKeyConstraint(["tenant_id", "agent_id"], ["agents.tenant_id", "agents.agent_id"]),
)

ENROLMENT_REQUESTS: Final = tenant_table(
    "enrolment_requests",
    Column("token_hash", LargeBinary, primary_key=True),
    Column("site_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    moment("asked_at"),
    moment("expires_at"),
    moment("decided_at", nullable=True),
    Column("decided_by", Text, nullable=True),
    Column("approved", Boolean, nullable=False, server_default=text("false")),
    ForeignKeyConstraint(["tenant_id", "token_hash"], ["join_tokens.tenant_id", "join_tokens.token_hash"]),
)
