"""Adapters the whole cloud stands on: database, embedded PostgreSQL, outbox, leases, bus, processes."""
