"""Billing: contracts, invoices that nobody can change once final, and their evidence."""

from typing import Final

from alembic import op

from cloud.models.tenancy import isolate

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None

_CREATE: Final = """
CREATE TABLE energy_contracts (
    tenant_id uuid NOT NULL,
    site_id text NOT NULL,
    valid_from timestamptz NOT NULL,
    rate_usd_per_kwh numeric NOT NULL,
    credit_usd_per_mwh numeric,
    currency text NOT NULL,
    timezone text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_energy_contracts PRIMARY KEY (tenant_id, site_id, valid_from)
);
CREATE TABLE invoice_counters (
    tenant_id uuid NOT NULL,
    series text NOT NULL,
    last_number bigint NOT NULL,
    CONSTRAINT pk_invoice_counters PRIMARY KEY (tenant_id, series)
);
CREATE TABLE crm_invoices (
    tenant_id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    number bigint NOT NULL,
    site_id text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    currency text NOT NULL,
    total numeric NOT NULL,
    document bytea,
    document_sha256 text,
    created_at timestamptz NOT NULL,
    finalized_at timestamptz,
    CONSTRAINT pk_crm_invoices PRIMARY KEY (tenant_id, invoice_id)
);
CREATE UNIQUE INDEX ux_crm_invoices_number ON crm_invoices (tenant_id, number);
CREATE INDEX ix_crm_invoices_site ON crm_invoices (tenant_id, site_id, period_start);
CREATE TABLE invoice_lines (
    tenant_id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    place integer NOT NULL,
    code text NOT NULL,
    description text NOT NULL,
    quantity numeric NOT NULL,
    unit text NOT NULL,
    rate numeric NOT NULL,
    amount numeric NOT NULL,
    CONSTRAINT pk_invoice_lines PRIMARY KEY (tenant_id, invoice_id, place),
    CONSTRAINT fk_invoice_lines_tenant_id_invoice_id FOREIGN KEY (tenant_id, invoice_id)
        REFERENCES crm_invoices (tenant_id, invoice_id)
);
CREATE TABLE invoice_evidence (
    tenant_id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    line_place integer NOT NULL,
    place integer NOT NULL,
    meter_id text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    kwh numeric NOT NULL,
    estimated boolean NOT NULL,
    method text NOT NULL,
    note text NOT NULL DEFAULT '',
    CONSTRAINT pk_invoice_evidence PRIMARY KEY (tenant_id, invoice_id, line_place, place),
    CONSTRAINT fk_invoice_evidence_tenant_id_invoice_id FOREIGN KEY (tenant_id, invoice_id)
        REFERENCES crm_invoices (tenant_id, invoice_id)
)
"""

_TABLES: Final = ("energy_contracts", "invoice_counters", "crm_invoices", "invoice_lines", "invoice_evidence")

_IMMUTABLE: Final = (
    """CREATE FUNCTION ballast_refuse_final_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF OLD.finalized_at IS NOT NULL THEN
           RAISE EXCEPTION 'invoice % is final; correct it with a credit or debit note', OLD.number
             USING ERRCODE = 'integrity_constraint_violation';
         END IF;
         IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
         RETURN NEW;
       END $$""",
    """CREATE TRIGGER invoice_is_final BEFORE UPDATE OR DELETE ON crm_invoices
       FOR EACH ROW EXECUTE FUNCTION ballast_refuse_final_invoice()""",
    """CREATE FUNCTION ballast_refuse_final_part() RETURNS trigger LANGUAGE plpgsql AS $$
       DECLARE part record; final_number bigint;
       BEGIN
         FOREACH part IN ARRAY CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW] WHEN 'DELETE' THEN ARRAY[OLD]
                               ELSE ARRAY[OLD, NEW] END LOOP
           SELECT number INTO final_number FROM crm_invoices
             WHERE tenant_id = part.tenant_id AND invoice_id = part.invoice_id AND finalized_at IS NOT NULL;
           IF FOUND THEN
             RAISE EXCEPTION 'invoice % is final; correct it with a credit or debit note', final_number
               USING ERRCODE = 'integrity_constraint_violation';
           END IF;
         END LOOP;
         IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
         RETURN NEW;
       END $$""",
    """CREATE TRIGGER line_is_final BEFORE INSERT OR UPDATE OR DELETE ON invoice_lines
       FOR EACH ROW EXECUTE FUNCTION ballast_refuse_final_part()""",
    """CREATE TRIGGER evidence_is_final BEFORE INSERT OR UPDATE OR DELETE ON invoice_evidence
       FOR EACH ROW EXECUTE FUNCTION ballast_refuse_final_part()""",
)


def upgrade() -> None:
    """Create the tables, isolate them, and make final invoices immutable."""
    for statement in (*_CREATE.split(";\n"), *isolate(*_TABLES), *_IMMUTABLE):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything this revision made."""
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table} CASCADE")
    for function in ("ballast_refuse_final_part", "ballast_refuse_final_invoice"):
        op.execute(f"DROP FUNCTION {function}()")
