"""What the numbers were measured on: cores, memory, disk, versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psycopg
import redis

from shared.settings import VERSION


def facts(home: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """Lines for the head of the report. home: where the data of Postgres and Valkey is."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "machine": f"{os.cpu_count()} cores ({_cpu_model()}), {memory_gb:.0f} GB, {platform.system()}"
        f" {platform.release()}, data on {_filesystem(home)}",
        "versions": f"Waybill {VERSION}, Python {platform.python_version()}, litellm {version('litellm')}, "
        f"{_postgres(database_url)}, {_redis(redis_url)}",
    }


def load_average() -> str:
    """Of the last minute, and of the last five."""
    one, five, _ = os.getloadavg()
    return f"{one:.1f} and {five:.1f}"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _filesystem(path: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(point), kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    return max(above)[1]


def _postgres(url: str) -> str:
    query = "select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')"
    with psycopg.connect(url, connect_timeout=10) as database:
        number, fsync, commit = database.execute(query).fetchone() or ("unknown", "unknown", "unknown")
    return f"Postgres {number} (fsync {fsync}, synchronous_commit {commit})"


def _redis(url: str) -> str:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        told = client.info("server")
    return f"Valkey {told['valkey_version']}" if "valkey_version" in told else f"Redis {told['redis_version']}"
