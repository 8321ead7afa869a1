"""Whether the servers that the settings name can be used now; what is wrong is told in a line without a password."""

import psycopg
import redis

from shared.read_settings import BadSetting
from shared.revision import HEAD

OLDEST_POSTGRES = 15
ANSWER_S = 2


def check_postgres(url: str) -> None:
    """Connect once. Raises BadSetting when that fails or the server is too old."""
    try:
        with psycopg.connect(url, connect_timeout=ANSWER_S, autocommit=True) as connection:
            version = connection.info.server_version
    except psycopg.Error as error:
        raise BadSetting(f"WAYBILL_DATABASE_URL: {_first_line(error)}") from None
    if version < OLDEST_POSTGRES * 10_000:
        raise BadSetting(
            f"WAYBILL_DATABASE_URL: the server is PostgreSQL {version // 10_000}; {OLDEST_POSTGRES} or newer is needed"
        )


def check_redis(url: str) -> None:
    """Ask once. Raises BadSetting when there is no answer."""
    try:
        with redis.Redis.from_url(url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=None) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError, TypeError) as error:
        raise BadSetting(f"WAYBILL_REDIS_URL: {_first_line(error)}") from None


def is_migrated(url: str) -> bool:
    """Whether the database is at the revision this code needs."""
    try:
        with psycopg.connect(url, connect_timeout=ANSWER_S, autocommit=True) as connection:
            found = connection.execute("select version_num from alembic_version").fetchall()
    except psycopg.Error:
        return False
    return found == [(HEAD,)]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].removeprefix("connection failed: ") or type(error).__name__
