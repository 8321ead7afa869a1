"""The folder that keeps a local Waybill between runs: keys, ports, data, logs, and what runs now."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_KEPT_BYTES = 10 * 1024 * 1024


class AlreadyRunning(RuntimeError):
    """Another `waybill up` holds this home."""


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step; only its owner may read it (mode 0600)."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(content, out, indent=2)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty when there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RuntimeError(f"{path} is not JSON ({error}); repair it or move it away") from None
    return content if isinstance(content, dict) else {}


class Home:
    """Paths and files under WAYBILL_HOME.

    keys.json   admin, encryption and secret key, Postgres password   kept
    demo.json   the demo team's virtual key, the demo provider's URL  kept
    ports.json  the ports of what runs beside the api                 kept
    run.json    URLs and pids, while it runs
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.run, self.demo = self.path / "run.json", self.path / "demo.json"
        self.keys, self.ports = self.path / "keys.json", self.path / "ports.json"
        self.worker_pids = self.path / "worker-pids.json"
        self._lock = -1

    def prepare(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        (self.path / "logs").mkdir(mode=0o700, exist_ok=True)

    def lock(self) -> None:
        """Hold the home until this process ends, however it ends."""
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode().strip() or "unknown"
            address = read_json(self.run).get("api_url", "still starting")
            raise AlreadyRunning(
                f"Waybill already runs from {self.path} (pid {holder}, {address}).\n"
                "Stop it with Ctrl-C, or start another with its own WAYBILL_HOME and WAYBILL_PORT."
            ) from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())
        self.run.unlink(missing_ok=True)
        self.worker_pids.unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def read_worker_pids(self) -> list[int]:
        """The worker units, as the worker's parent lists them; empty until it has."""
        try:
            listed = json.loads(self.worker_pids.read_text())
        except (FileNotFoundError, ValueError):
            return []
        return [pid for pid in listed if isinstance(pid, int)] if isinstance(listed, list) else []

    def turn_logs(self) -> None:
        """Put logs that have grown large aside, one generation."""
        for log in (self.path / "logs").glob("*.log"):
            if log.stat().st_size > LOG_KEPT_BYTES:
                log.replace(log.with_suffix(".log.1"))

    def load_keys(self) -> dict[str, str]:
        """The keys of this home, made at the first run."""
        keys = read_json(self.keys)
        made = {
            "admin_key": secrets.token_urlsafe(32),
            "secret_key": secrets.token_urlsafe(32),
            "encryption_key": base64.b64encode(secrets.token_bytes(32)).decode(),
            "postgres_password": secrets.token_urlsafe(24),
        }
        complete: dict[str, str] = {**made, **keys}
        if complete != keys:
            write_private(self.keys, complete)
        return complete
