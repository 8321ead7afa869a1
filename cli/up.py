"""`waybill up`: everything on one machine, started in order, kept alive, stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import httpx
import psycopg

from cli.banner import banner
from cli.children import Child, Signals
from cli.config import PROJECT, Config
from cli.embedded import Postgres, Valkey
from cli.given import check_given
from cli.home import Home, read_json, write_private
from cli.programs import Command, Programs
from cli.seed import Demo, SeedFailed
from cli.spawn import end_with_parent, free_port, port_is_free, spawn, tail
from cli.supervisor import Stopped, Supervisor
from shared.read_settings import BadSetting
from shared.servers import is_migrated

READY_TIMEOUT_S = 120.0


class PortTaken(RuntimeError):
    """Something else listens on the API's port."""


class MigrationFailed(RuntimeError):
    """The database could not be brought to the newest revision."""


REFUSALS = (BadSetting, RuntimeError, OSError, psycopg.Error)  # told in a line, without a traceback


def up(programs: Programs | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run until asked to stop; returns the exit code."""
    if "MAKELEVEL" in environ:
        end_with_parent(signal.SIGTERM)  # nobody is left to press Ctrl-C once make is gone
    os.umask(0o077)
    try:
        config = Config.read(environ)
        home = _open_home(config)
        _refuse_taken_port(config.port)
        with Signals() as signals:
            check_given(config, home, home.load_keys())
            return _Up(config, home, programs or Programs(), signals).run()
    except REFUSALS as error:
        _say(f"waybill: {error}", to_errors=True)
        return 1


def _say(text: str, *, to_errors: bool = False) -> None:
    print(text, file=sys.stderr if to_errors else sys.stdout, flush=True)


def _open_home(config: Config) -> Home:
    home = Home(config.home)
    try:
        home.prepare()
        home.lock()
    except OSError as error:
        raise BadSetting(f"WAYBILL_HOME: {config.home} cannot be used ({error.strerror})") from None
    return home


def _refuse_taken_port(port: int) -> None:
    if not port_is_free(port):
        other = port + 1 if port < 65535 else 8003
        raise PortTaken(
            f"port {port} is already in use. Stop what uses it, or choose another: WAYBILL_PORT={other} make up"
        )


class _Up:
    """One run, from the first server to the last."""

    def __init__(self, config: Config, home: Home, programs: Programs, signals: Signals) -> None:
        self.config, self.home, self.programs, self.signals = config, home, programs, signals
        self.supervisor = Supervisor(home, signals, self.say)
        self.keys = home.load_keys()
        self.ports: dict[str, int] = read_json(home.ports)
        self.started_at = time.monotonic()
        self.http = httpx.Client(base_url=config.api_url, timeout=5, trust_env=False)

    def say(self, text: str) -> None:
        _say(f"[{time.monotonic() - self.started_at:5.1f} s] {text}")

    def run(self) -> int:
        self.home.turn_logs()
        try:
            self._start()
            while True:
                self.supervisor.tick()
        except Stopped:
            self.say("stopping (Ctrl-C again kills at once)")
            return 0
        finally:
            self.supervisor.stop()
            self.http.close()
            self.say("stopped")

    def _start(self) -> None:
        database_url, redis_url = self._start_servers()
        write_private(self.home.ports, self.ports)
        env = self.config.product_env(self.home, self.keys, database_url, redis_url)
        self.supervisor.facts = {"api_url": self.config.api_url, "database_url": database_url, "redis_url": redis_url}
        if not is_migrated(database_url):
            self._migrate(env)
        provider_url = self._start_programs(env)
        self.supervisor.wait_until(self._api_ready, "api", READY_TIMEOUT_S)
        self.say(f"api on {self.config.api_url}")
        demo = self._seed(env, provider_url)
        self.supervisor.wait_until(lambda: bool(self.supervisor.worker_pids()), "worker", READY_TIMEOUT_S)
        self.supervisor.write_run()
        self.say("ready")
        _say(banner(self.config, self.home, env, demo))

    def _start_servers(self) -> tuple[str, str]:
        """The servers that no URL replaces; returns the URLs of Postgres and Redis."""
        return self.config.database_url or self._start_postgres(), self.config.redis_url or self._start_valkey()

    def _start_valkey(self) -> str:
        valkey = Valkey(
            self.home.path / "valkey",
            log=self.home.log("valkey"),
            port=self._port("valkey"),
            env=self.config.server_env(),
        )
        self._start_server(valkey)
        return valkey.url()

    def _start_postgres(self) -> str:
        postgres = Postgres(
            self.home.path / "postgres" / "data",
            password=self.keys["postgres_password"],
            log=self.home.log("postgres"),
            port=self._port("postgres"),
            env=self.config.server_env(),
        )
        self._start_server(postgres)
        return postgres.url()

    def _start_server(self, server: Postgres | Valkey) -> None:
        server.start(pause=self.supervisor.tick)
        child = self.supervisor.add(Child(server.name, server.spawn, server.log, stop_signal=server.stop_signal))
        if server.process is not None:
            child.adopt(server.process)
        self.say(f"{server.name} on 127.0.0.1:{server.port}")

    def _port(self, name: str) -> int:
        """The port this had last time, if it is free."""
        self.ports[name] = free_port(self.ports.get(name))
        return self.ports[name]

    def _launch(self, name: str, command: Command, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return spawn(command, env=env, log=self.home.log(name), cwd=PROJECT)

    def _launch_worker(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self.home.worker_pids.unlink(missing_ok=True)  # the units it lists died with the parent before
        return self._launch("worker", self.programs.worker, env)

    def _add(self, name: str, command: Command, env: Mapping[str, str]) -> None:
        self._watch(name, partial(self._launch, name, command, env))

    def _watch(self, name: str, launch: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.supervisor.add(Child(name, launch, self.home.log(name))).start()

    def _migrate(self, env: Mapping[str, str]) -> None:
        log = self.home.log("migrate")
        process = self._launch("migrate", self.programs.migrate, env)
        try:
            while process.poll() is None:
                self.supervisor.tick(0.05)
        finally:
            process.kill()
            code = process.wait()
        if code != 0:
            raise MigrationFailed(f"the migration ended with exit code {code}; the end of {log}:\n{tail(log)}")
        self.say("database migrated")

    def _start_programs(self, env: Mapping[str, str]) -> str:
        """All at once, the slowest to start first; returns the URL of the demo provider."""
        port = self._port("provider")
        write_private(self.home.ports, self.ports)
        with_keys = self.config.with_provider_keys(env)
        self._watch("worker", partial(self._launch_worker, with_keys))
        self._add("api", self.programs.api, with_keys)
        self._add("provider", (*self.programs.provider, "--port", str(port)), self.config.server_env())
        self._add("timer", self.programs.timer, env)
        self.say(f"starting worker, api, timer, and the demo provider on 127.0.0.1:{port}")
        return f"http://127.0.0.1:{port}/v1"

    def _api_ready(self) -> bool:
        if not self.supervisor.children["api"].running:
            return False  # what answers on the port is not ours
        try:
            answer = self.http.get("/health/readiness")
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def _seed(self, env: Mapping[str, str], provider_url: str) -> Demo | None:
        try:
            return self.programs.seed(
                self.config.api_url, env["WAYBILL_ADMIN_KEY"], provider_url, self.home, self.config.environ
            )
        except (SeedFailed, httpx.HTTPError) as error:
            self.say(f"the demo team could not be made: {error}")
            return None
