"""Row-level security, the same for every table: what a migration calls right after ``CREATE TABLE``.

Invariants: security is ENABLED and FORCED (the owner obeys it too); without a tenant set, a table is empty and takes
no rows; the application logs in as ``ballast_app``, which owns nothing.

Source: PostgreSQL manual, 5.9 Row Security Policies. After a commit a transaction-local setting reads ``''``, hence
``nullif``.
"""

from typing import Final

APP_ROLE: Final = "ballast_app"
OWNER_ROLE: Final = "ballast_owner"
CURRENT_TENANT: Final = "nullif(current_setting('app.tenant_id', true), '')::uuid"


def isolate(*tables: str) -> tuple[str, ...]:
    """Return the statements that isolate tenants in ``tables`` and let the application use them."""
    statements: list[str] = []
    mine = f"tenant_id = {CURRENT_TENANT}"
    for table in tables:
        statements += [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON {table} USING ({mine}) WITH CHECK ({mine})",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP_ROLE}",
        ]
    return tuple(statements)
