"""Fixtures of the integration tests: a real PostgreSQL."""

from tests.postgres import cluster, database, database_name, principal, template

__all__ = ["cluster", "database", "database_name", "principal", "template"]
