"""Tables of ``cloud.billing``: contracts, invoices with lines and evidence, and the counter that numbers invoices.

Invariants, kept by triggers: once ``finalized_at`` is set, an invoice, its lines and its evidence can be neither
changed nor deleted, and nothing can be added to them.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Text,
    Uuid,
    text,
)

from cloud.models.base import moment, tenant_table

ENERGY_CONTRACTS: Final = tenant_table(
    "energy_contracts",
    Column("site_id", Text, primary_key=True),
    moment("valid_from", primary_key=True),
    Column("rate_usd_per_kwh", Numeric, nullable=False),
    Column("credit_usd_per_mwh", Numeric, nullable=True),
    Column("currency", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    moment("created_at"),
)

INVOICE_COUNTERS: Final = tenant_table(
    "invoice_counters",
    Column("series", Text, primary_key=True),
    Column("last_number", BigInteger, nullable=False),
)

CRM_INVOICES: Final = tenant_table(
    "crm_invoices",
    Column("invoice_id", Uuid, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("site_id", Text, nullable=False),
    moment("period_start"),
    moment("period_end"),
    Column("currency", Text, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("document", LargeBinary, nullable=True),
    Column("document_sha256", Text, nullable=True),
    moment("created_at"),
    moment("finalized_at", nullable=True),
)
Index("ux_crm_invoices_number", CRM_INVOICES.c.tenant_id, CRM_INVOICES.c.number, unique=True)
Index("ix_crm_invoices_site", CRM_INVOICES.c.tenant_id, CRM_INVOICES.c.site_id, CRM_INVOICES.c.period_start)

INVOICE_LINES: Final = tenant_table(
    "invoice_lines",
    Column("invoice_id", Uuid, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("code", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("unit", Text, nullable=False),
    Column("rate", Numeric, nullable=False),
    Column("amount", Numeric, nullable=False),
    ForeignKeyConstraint(["tenant_id", "invoice_id"], ["crm_invoices.tenant_id", "crm_invoices.invoice_id"]),
)

INVOICE_EVIDENCE: Final = tenant_table(
    "invoice_evidence",
    Column("invoice_id", Uuid, primary_key=True),
    Column("line_place", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("meter_id", Text, nullable=False),
    moment("start_at"),
    moment("end_at"),
    Column("kwh", Numeric, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("method", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    ForeignKeyConstraint(["tenant_id", "invoice_id"], ["crm_invoices.tenant_id", "crm_invoices.invoice_id"]),
)
