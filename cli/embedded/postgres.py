"""A Postgres server for one machine: made, started and stopped by us, as root too."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from cli.embedded.account import Account, account_for
from cli.embedded.binaries import postgres_bin
from cli.embedded.server import Pause, Server, ServerFailed
from cli.spawn import spawn

USER = "waybill"
ENDS_ITS_CHILDREN = signal.SIGQUIT  # SIGKILL would leave them to notice


class Postgres(Server):
    """One cluster in `data_dir`, reached over TCP on loopback with a password.

    settings: more lines of postgresql.conf, such as {"fsync": "off"} for tests.
    account: who runs it; found by trying when not given.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # SIGTERM waits until every client has gone

    def __init__(
        self,
        data_dir: Path,
        *,
        password: str,
        log: Path,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> None:
        super().__init__(log, port)
        self.data_dir = data_dir.absolute()
        self.password = password
        self.settings = dict(settings or {})
        self._env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", **(env or {})}
        self._bin = postgres_bin()
        self.data_dir.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._account = account or account_for(self._bin / "postgres", self.data_dir.parent)

    def url(self, database: str = USER) -> str:
        return f"postgresql://{USER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self, timeout_s: float = 60, pause: Pause = time.sleep) -> None:
        """Make the cluster when there is none, start it, and make the database `waybill`."""
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        self._refuse_other_version()
        super().start(timeout_s, pause)
        self.create_database(USER)

    def create_database(self, name: str) -> str:
        """Make a database unless it exists; returns its URL."""
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        with (
            suppress(psycopg.errors.DuplicateDatabase),
            psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection,
        ):
            connection.execute(create)
        return self.url(name)

    def spawn(self) -> subprocess.Popen[bytes]:
        self._account.own(self.data_dir)
        self._drop_stale_lock()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "logging_collector": "off",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self.settings,
        }
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        self.process = spawn(
            self._account.command(
                str(self._bin / "postgres"), "-D", str(self.data_dir), *settings, death_signal=ENDS_ITS_CHILDREN
            ),
            env=self._env,
            log=self.log,
            cwd=self.data_dir.parent,
            death_signal=ENDS_ITS_CHILDREN,
            uid=self._account.uid,
        )
        return self.process

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ServerFailed(
                    f"the password kept for {self.data_dir} is not the one it was made with; restore the file that"
                    " held it, or move the data folder away"
                ) from None
            return False
        return self.running

    def _initialise(self) -> None:
        """initdb in a folder beside, renamed at the end: a killed first start leaves no half-made cluster."""
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        secret = self.data_dir.with_name(self.data_dir.name + ".password")
        shutil.rmtree(fresh, ignore_errors=True)
        secret.unlink(missing_ok=True)
        fresh.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        self._account.own(fresh)
        self._account.own(secret)
        try:
            self._initdb(fresh, secret)
        finally:
            secret.unlink()
        fresh.rename(self.data_dir)

    def _initdb(self, folder: Path, secret: Path) -> None:
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", f"--locale={locale}"]
        process = spawn(
            self._account.command(str(self._bin / "initdb"), "-D", str(folder), *options, death_signal=signal.SIGKILL),
            env=self._env,
            log=self.log,
            cwd=folder,
            uid=self._account.uid,
        )
        if process.wait() != 0:
            raise ServerFailed(f"initdb failed; see {self.log}")

    def _refuse_other_version(self) -> None:
        made_by = (self.data_dir / "PG_VERSION").read_text().strip()
        told = subprocess.run([str(self._bin / "postgres"), "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"\) (\d+)", told.stdout)
        if found and found[1] != made_by:
            raise ServerFailed(
                f"{self.data_dir} was made by PostgreSQL {made_by}, but {self._bin} is {found[1]}."
                " Name the older server's bin folder in WAYBILL_POSTGRES_BIN, or move the data folder away."
            )

    def _drop_stale_lock(self) -> None:
        """A killed server leaves its pid; once another program has that number, Postgres would refuse to start."""
        lock = self.data_dir / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        if not Path(f"/proc/{pid}").exists():
            return
        try:
            ours = Path(f"/proc/{pid}/cwd").readlink() == self.data_dir.resolve()
        except OSError:
            ours = False
        if not ours:
            lock.unlink()
