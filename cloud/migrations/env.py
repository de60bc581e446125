"""What alembic runs: the revisions, on the connection that ``cloud.infra.migrate`` hands over."""

from alembic import context

from cloud.models.base import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
