"""Postgres: a visible transaction, on SQLAlchemy's connections or, for what runs for every call, on the driver's own.

Database.transaction, .statement           statements built with SQLAlchemy Core, and `hot` ones
Database.hot_transaction, .hot_statement   `hot` statements only: a third of the client's CPU
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from psycopg import AsyncConnection as PsycopgConnection
from psycopg import Error, InterfaceError, OperationalError
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_dumps, set_json_loads
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.driver_pool import Connection, DriverPool

CoreTx = AsyncConnection
"""An open connection that runs what SQLAlchemy Core builds."""

Tx = CoreTx | Connection
"""An open connection that runs `hot` statements; nouns take it first, never commit it."""

DatabaseDown = (DBAPIError, PoolTimeout, OperationalError, InterfaceError, ConnectionError, TimeoutError)
"""What a database in trouble raises; `is_down` tells trouble from our own mistakes."""

CONNECTION_S = 1.0
WAIT_S = 6.0
"""A statement that has no answer by then has none: the server bounds its own work, a dead path does not."""

DEAD_PATH: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""libpq: give a connection up when the other side is silent for about ten seconds."""

SESSION = {
    "statement_timeout": "5s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
    "jit": "off",
}


def driver_url(url: str) -> str:
    """The psycopg form of `postgresql://…`, for SQLAlchemy."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def session_options(extra: Mapping[str, str] | None = None) -> str:
    """libpq `options` that bound how long a statement, a lock or an idle transaction may take."""
    return " ".join(f"-c {name}={value}" for name, value in {**SESSION, **(extra or {})}.items())


LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"


class Database:
    """The connections of one process: `pool` for hot statements, and as many for all others.

    All waits are bounded: 1 s for a connection, 6 s for a statement.
    """

    def __init__(
        self, url: str, *, pool: int = 10, name: str = "waybill", session: Mapping[str, str] | None = None
    ) -> None:
        connect: dict[str, Any] = {
            "connect_timeout": 2,
            "application_name": name,
            "options": session_options(session),
            **DEAD_PATH,
        }

        async def connected() -> Connection:
            connection = await PsycopgConnection.connect(url, autocommit=True, **connect)
            set_json_loads(orjson.loads, connection)
            set_json_dumps(_dumps, connection)
            return connection

        self._driver = DriverPool(connected, size=pool, wait_s=CONNECTION_S)
        self.patient = asyncio.Semaphore(max(1, pool // 4))
        """Room for group commits of one team that wait long for a lock: the others keep most of `pool`."""
        self.engine: AsyncEngine = create_async_engine(
            driver_url(url),
            pool_size=pool,
            max_overflow=0,
            pool_timeout=CONNECTION_S,
            pool_pre_ping=False,
            pool_reset_on_return="rollback",
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
            hide_parameters=True,
            connect_args=connect,
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[CoreTx]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with asyncio.timeout(2 * WAIT_S), self.engine.begin() as tx:
            yield tx

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[CoreTx]:
        """A connection on which every statement is its own transaction: for reads and for single statements."""
        async with asyncio.timeout(WAIT_S), self._autocommit.connect() as tx:
            yield tx

    @asynccontextmanager
    async def hot_transaction(self, *, lock_s: float | None = None) -> AsyncIterator[Tx]:
        """A transaction for hot statements only. lock_s: how long each may wait for a lock, where not 3 s."""
        async with asyncio.timeout(2 * WAIT_S), self._driver.connection() as connection:
            begun = connection.transaction() if lock_s is None else _transaction(connection, lock_s)
            async with begun:
                yield connection

    @asynccontextmanager
    async def long_transaction(self, limit_s: float) -> AsyncIterator[Connection]:
        """The same for a batch's many thousand rows: each statement is bounded as ever, all of them by `limit_s`."""
        async with asyncio.timeout(limit_s), self._driver.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def hot_statement(self) -> AsyncIterator[Tx]:
        """A connection on which every hot statement is its own transaction."""
        async with asyncio.timeout(WAIT_S), self._driver.connection() as connection:
            yield connection

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.close()
        await self.engine.dispose()


@asynccontextmanager
async def _transaction(connection: Connection, lock_s: float) -> AsyncIterator[None]:
    """As the connection's own, with a limit that travels with its BEGIN: no round trip more."""
    begin = f"begin; set local lock_timeout = {round(lock_s * 1000)}"
    await connection.execute(begin.encode(), prepare=False)
    try:
        yield
    except BaseException:
        # What broke the connection is what the block raised.
        with suppress(Error):
            await connection.rollback()
        raise
    await connection.commit()


async def hot(tx: Tx, sql: str, params: Sequence[Any] | Mapping[str, Any] = (), *, binary: bool = False) -> list[Any]:
    """Run one statement straight on the psycopg connection of `tx`; rows are named tuples.

    A SQLAlchemy statement costs about four times the client CPU; for the few statements run for every call.
    binary: rows come in binary form; bytes are half as long that way.
    """
    connection: Connection = (
        tx if isinstance(tx, PsycopgConnection) else (await tx.get_raw_connection()).driver_connection  # type: ignore[assignment]
    )
    async with connection.cursor(row_factory=namedtuple_row) as cursor:
        await cursor.execute(sql, params, binary=binary)
        # Not `cursor.description`: it builds an object for every column.
        returns_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
        return await cursor.fetchall() if returns_rows else []


def is_down(error: BaseException) -> bool:
    """Whether an error is trouble that passes (connection, restart, timeout, lock) and not a mistake of ours."""
    if isinstance(error, DBAPIError):
        cause = error.orig
        error = cause if isinstance(cause, BaseException) else error
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, DatabaseDown)
    return str(state)[:2] in {"08", "53", "57", "58", "40", "55", "25"}


def ran_out_of_time(error: BaseException) -> bool:
    """Whether a limit of time ended it (a statement's, a lock's, ours): the database may be well, only this is slow."""
    cause = getattr(error, "orig", None) or error
    return isinstance(cause, TimeoutError) or getattr(cause, "sqlstate", None) in {QUERY_CANCELED, LOCK_NOT_AVAILABLE}


def waited_for_a_lock(error: BaseException) -> bool:
    """Whether a lock that somebody holds too long ended it."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlstate", None) == LOCK_NOT_AVAILABLE


def one_to_blame(error: BaseException) -> bool:
    """Whether one item of a group may have caused it: a mistake of ours, or a lock that somebody holds too long."""
    return not is_down(error) or waited_for_a_lock(error)


def _dumps(value: object) -> str:
    return orjson.dumps(value, default=str).decode()
