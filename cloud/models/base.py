"""The one metadata, and how a table begins.

Invariant: every table has ``tenant_id`` first in its primary key; times are ``timestamptz``.
"""

from typing import Any, Final

from sqlalchemy import Column, DateTime, MetaData, Table, Uuid
from sqlalchemy.schema import SchemaItem

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def tenant_table(name: str, *items: SchemaItem) -> Table:
    """Return a table called ``name`` whose primary key starts with ``tenant_id``."""
    return Table(name, METADATA, Column("tenant_id", Uuid, primary_key=True), *items)


def moment(name: str, **options: Any) -> Column[Any]:
    """Return a ``timestamptz`` column, NOT NULL unless said otherwise."""
    options.setdefault("nullable", False)
    return Column(name, DateTime(timezone=True), **options)
