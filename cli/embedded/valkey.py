"""A Valkey (or Redis) server for one machine, its data kept in an append-only file."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cli.embedded.binaries import valkey_server
from cli.embedded.server import Server
from cli.spawn import spawn


class Valkey(Server):
    """One server with its data in `data_dir`, on loopback only."""

    name = "valkey"
    stop_signal = signal.SIGTERM

    def __init__(
        self, data_dir: Path, *, log: Path, port: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(log, port)
        self.data_dir = data_dir.absolute()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", **(env or {})}
        self._program = valkey_server()

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def spawn(self) -> subprocess.Popen[bytes]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "set-proc-title": "no",  # a title is written over the environment that `ps` and /proc show
        }
        settings = [word for key, value in options.items() for word in (f"--{key}", value)]
        self.process = spawn([str(self._program), *settings], env=self._env, log=self.log, cwd=self.data_dir)
        return self.process

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG") and self.running
        return False
