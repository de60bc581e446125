"""The schema's history. ``cloud.infra.migrate`` runs it; every revision isolates its tables with ``models.tenancy``."""
