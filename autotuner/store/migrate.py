"""Bringing an older or empty database to the newest schema: the only door to alembic.

Imported only when a database is not at `schema.HEAD`, since alembic costs half a second.
"""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

SCRIPTS = "autotuner.store:migrations"


def _configure(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", SCRIPTS)
    config.set_main_option("path_separator", "os")
    return config


def knows(revision: str) -> bool:
    """Whether this program has the revision, and so can go on from it."""
    try:
        return ScriptDirectory.from_config(_configure()).get_revision(revision) is not None
    except CommandError:
        return False


def upgrade(connection: Connection) -> None:
    """Run every missing migration inside the connection's transaction: all of them or none."""
    command.upgrade(_configure(connection), "head")
