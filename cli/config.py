"""What `waybill up` reads from the environment, and the environment of each program it starts."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.home import Home
from shared.providers import KEY_VARIABLES
from shared.read_settings import BadSetting

LOOPBACK = "127.0.0.0/8,::1/128"
OPEN_NETWORKS = ("WAYBILL_WEBHOOK_ALLOW_NETS", "WAYBILL_PROVIDER_ALLOW_NETS")
PROJECT = Path(__file__).resolve().parents[1]

_KEY_VARIABLES = {variable for variables in KEY_VARIABLES.values() for variable in variables}
_SECRET_OF_PROVIDER = re.compile(r"(_API_KEY|_ACCESS_KEY|_ACCESS_KEY_ID|_SESSION_TOKEN|_AUTH_TOKEN)$")
_MADE_BY_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")


@dataclass(frozen=True)
class Config:
    """Settings of one `waybill up`; URLs that are None mean an embedded server."""

    home: Path
    port: int
    workers: int
    batch_workers: int
    admin_key: str | None
    database_url: str | None
    redis_url: str | None
    environ: Mapping[str, str]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Config":
        return cls(
            home=Path(environ.get("WAYBILL_HOME") or ".waybill").absolute(),
            port=_number(environ, "WAYBILL_PORT", 8003, high=65535),
            workers=_number(environ, "WAYBILL_WORKERS", _default_workers(), high=256),
            batch_workers=_number(environ, "WAYBILL_BATCH_WORKERS", 1, low=0, high=256),
            admin_key=environ.get("WAYBILL_ADMIN_KEY") or None,
            database_url=environ.get("WAYBILL_DATABASE_URL") or None,
            redis_url=environ.get("WAYBILL_REDIS_URL") or None,
            environ={key: value for key, value in environ.items() if key not in _MADE_BY_MAKE},
        )

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def server_env(self) -> dict[str, str]:
        """For Postgres, Valkey and the demo provider: nothing secret."""
        kept = {key: value for key, value in self.environ.items() if not _is_secret(key)}
        return {**kept, "WAYBILL_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}

    def product_env(self, home: Home, keys: Mapping[str, str], database_url: str, redis_url: str) -> dict[str, str]:
        """For our own programs; provider keys are not in it (`with_provider_keys` adds them)."""
        ours = {key: value for key, value in self.environ.items() if key.startswith("WAYBILL_")}
        made = {
            "WAYBILL_SECRET_KEY": keys["secret_key"],
            "WAYBILL_ENCRYPTION_KEY": keys["encryption_key"],
            "WAYBILL_DRAIN_S": "8",
            **dict.fromkeys(OPEN_NETWORKS, LOOPBACK),
        }
        fixed = {
            "WAYBILL_ADMIN_KEY": self.admin_key or keys["admin_key"],
            "WAYBILL_PORT": str(self.port),
            "WAYBILL_WORKERS": str(self.workers),
            "WAYBILL_BATCH_WORKERS": str(self.batch_workers),
            "WAYBILL_DATABASE_URL": database_url,
            "WAYBILL_REDIS_URL": redis_url,
            "WAYBILL_WORKER_PIDS_FILE": str(home.worker_pids),
        }
        given = {key: value for key, value in ours.items() if value}
        return {**self.server_env(), **made, **given, **fixed, "WAYBILL_HOME": str(self.home)}

    def with_provider_keys(self, env: Mapping[str, str]) -> dict[str, str]:
        """For the api and the workers, the only ones that may know them."""
        return {**{key: value for key, value in self.environ.items() if _is_provider_secret(key)}, **env}


def _is_provider_secret(key: str) -> bool:
    return not key.startswith("WAYBILL_") and (key in _KEY_VARIABLES or bool(_SECRET_OF_PROVIDER.search(key)))


def _is_secret(key: str) -> bool:
    return key.startswith("WAYBILL_") or _is_provider_secret(key)


def _number(environ: Mapping[str, str], name: str, default: int, *, low: int = 1, high: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit() or not low <= int(text) <= high:
        raise BadSetting(f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def _default_workers() -> int:
    cores = os.cpu_count() or 1
    return 1 if cores <= 2 else cores - 1
