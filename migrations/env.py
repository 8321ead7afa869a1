"""Alembic's environment: one connection, an advisory lock around the whole upgrade, short lock waits."""

from alembic import context
from sqlalchemy import Connection, create_engine, text

from shared.tables import metadata

MIGRATION_LOCK = 0x5741_5942


def run() -> None:
    """Run the revisions online, or print their SQL with `--sql`."""
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    engine = create_engine(context.config.attributes["url"])
    with engine.connect() as connection:
        _migrate(connection)
    engine.dispose()


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text("set local lock_timeout = '3s'"))
        context.run_migrations()


run()
