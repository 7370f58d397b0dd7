"""Alembic's entry: run the migrations on the connection that `upgrade` passes, in the transaction it is in."""

from alembic import context

from holdfast.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
