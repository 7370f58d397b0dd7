"""How an existing ledger is brought to the present version, in place: Alembic revisions, `0001` being the first schema.

There is no ini file and nothing to run by hand: whoever opens a ledger brings it up to date. To add a change: change
`schema.py`, raise `SCHEMA_VERSION`, and add a file to `versions/` whose revision is that number.
"""

from pathlib import Path

from sqlalchemy import Connection, func, insert, inspect, select, text

from holdfast.errors import ConfigurationError
from holdfast.ledger.schema import SCHEMA_VERSION, metadata, schema_version

BEFORE_ALEMBIC = 1
"""The schema version of ledgers that no Alembic has seen."""


def bring_up_to_date(connection: Connection, location: str) -> None:
    """Create the tables, or migrate them from whichever version they have. Run it alone, in a transaction.

    Args:
        connection: In a transaction that excludes every other one that calls this.
        location: The database's URL without its password.

    Raises:
        ConfigurationError: A newer version wrote the database.
    """
    found = inspect(connection)
    if not found.has_table(schema_version.name):
        # The short way; that it ends where the migrations end is tested.
        metadata.create_all(connection)
        connection.execute(insert(schema_version), {"version": SCHEMA_VERSION})
        _stamp(connection, SCHEMA_VERSION)
        return
    version = connection.execute(select(func.max(schema_version.c.version))).scalar_one()
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"The ledger at {location} has schema version {version}, written by a newer Holdfast; this "
            f"one knows version {SCHEMA_VERSION}. Upgrade Holdfast, or point `ledger.url` at another database."
        )
    if version == BEFORE_ALEMBIC and not found.has_table("alembic_version"):
        _stamp(connection, BEFORE_ALEMBIC)
    upgrade(connection)
    connection.execute(insert(schema_version), {"version": SCHEMA_VERSION})


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to a revision, in the transaction of the connection."""
    # Loading Alembic takes longer than opening a ledger, and a ledger is migrated once.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _stamp(connection: Connection, version: int) -> None:
    """Say to Alembic which revision the tables have."""
    connection.execute(
        text(
            "CREATE TABLE alembic_version "
            "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": f"{version:04}"})
