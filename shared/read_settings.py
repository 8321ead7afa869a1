"""Settings from the environment, or one line that says which variable is wrong and why; never with a secret in it."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from shared.sealer import Sealer
from shared.settings import Settings

MAX_SHOWN = 60
EXIT_CODE = 2
REQUIRED = ("database_url", "redis_url", "encryption_key")
ENCODED = " (signs such as / @ : ? # % in the password percent-encoded)"
DATABASE_FORM = f"WAYBILL_DATABASE_URL must be like postgresql://user:password@host:5432/name{ENCODED}"
REDIS_FORM = f"WAYBILL_REDIS_URL must be like redis://host:6379/0 or redis://user:password@host:6379/0{ENCODED}"


class BadSetting(ValueError):
    """A variable has a value that cannot be used; the text names it and never shows a secret."""


def read_settings() -> Settings:
    """The settings of this process; ends it with one line on stderr and code 2 when they cannot be used."""
    try:
        _check_required(os.environ)
        return settings_of(os.environ)
    except BadSetting as error:
        end_with(error)


def end_with(error: BadSetting) -> NoReturn:
    """End the process, the reason on stderr."""
    sys.stderr.write(f"waybill: {error}\n")
    sys.exit(EXIT_CODE)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Settings from these variables; what REQUIRED names may be missing. Raises BadSetting."""
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    build: Callable[..., Settings] = Settings
    try:
        settings = build(_build_sources=((source,), {}))
    except ValidationError as error:
        raise BadSetting("; ".join(_told(dict(one)) for one in error.errors(include_url=False))) from None
    if settings.database_url:
        check_database_url(settings.database_url)
    if settings.redis_url:
        _check_redis_url(settings.redis_url)
    _check_encryption_key(settings.encryption_key.get_secret_value())
    return settings


def _check_required(environ: Mapping[str, str]) -> None:
    missing = [variable(name) for name in REQUIRED if not environ.get(variable(name))]
    if missing:
        raise BadSetting(f"{' and '.join(missing)} must be set")


def variable(name: str) -> str:
    """The environment variable of a field of Settings."""
    return f"WAYBILL_{name.upper()}"


def check_database_url(url: str) -> None:
    """Raises BadSetting unless it is a URL of Postgres."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise BadSetting(DATABASE_FORM) from None
    ports = str(parts.get("port", "0")).split(",")
    # A password with a bare / or @ moves its parts into the fields that follow it.
    moved = "@" in str(parts.get("dbname", "")) or "@" in str(parts.get("host", ""))
    if moved or not url.startswith(("postgresql://", "postgres://")) or not all(port.isdigit() for port in ports):
        raise BadSetting(DATABASE_FORM)


def _check_redis_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        readable = parts.port is None or bool(parts.hostname)
    except ValueError:
        raise BadSetting(REDIS_FORM) from None
    number = parts.path.strip("/")
    over_network = parts.scheme in {"redis", "rediss"} and readable and (number.isdigit() or not number)
    if not over_network and parts.scheme != "unix":
        raise BadSetting(REDIS_FORM)


def _check_encryption_key(key: str) -> None:
    if not key:
        return
    try:
        Sealer(key)
    except ValueError as error:
        raise BadSetting(str(error)) from None


def _told(error: Mapping[str, Any]) -> str:
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must", 1)
    if not error["loc"]:
        return text
    name = str(error["loc"][0])
    if not text.startswith("must "):
        return f"{variable(name)}: {text}"
    secret = Settings.model_fields[name].annotation is SecretStr
    shown = "" if secret else f", not {str(error['input'])[:MAX_SHOWN]!r}"
    return f"{variable(name)} {text}{shown}"
