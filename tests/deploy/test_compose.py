"""compose.yaml is safe as it stands: no default secret, no container that changes itself, no Redis that drops keys."""

import re
from pathlib import Path

import pytest
import yaml

from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SECRET = re.compile(r"KEY|PASSWORD|SECRET|TOKEN")
REQUIRED = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
ENVIRONMENT = [
    (name, variable, value)
    for name, service in SERVICES.items()
    for variable, value in service.get("environment", {}).items()
]


def seconds(duration: str) -> float:
    """`11m`, `30s` or `1m30s`."""
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups()
    return 60 * int(minutes or 0) + int(seconds or 0)


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_every_part_is_there():
    assert set(SERVICES) == {"postgres", "valkey", "migrate", "api", "worker", "timer"}
    assert OURS == ["migrate", "api", "worker", "timer"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_cannot_change_itself_or_gain_rights(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)
    assert name in OURS or service["user"] not in {"root", "0"}


@pytest.mark.parametrize(("name", "variable", "value"), ENVIRONMENT)
def test_no_secret_has_a_default(name: str, variable: str, value: str | None):
    if SECRET.search(variable):
        assert value is None or REQUIRED.fullmatch(value)
    elif value and "@" in value:
        assert re.fullmatch(r"postgresql://waybill:" + REQUIRED.pattern + "@postgres:5432/waybill", value)


@pytest.mark.parametrize(("name", "variable", "value"), [row for row in ENVIRONMENT if row[1].startswith("WAYBILL_")])
def test_variables_are_settings(name: str, variable: str, value: str | None):
    assert variable.removeprefix("WAYBILL_").lower() in Settings.model_fields


@pytest.mark.parametrize("name", ["api", "worker", "timer"])
def test_every_setting_can_be_given_in_a_file(name: str):
    assert SERVICES[name]["env_file"] == [{"path": "waybill.env", "required": False}]


@pytest.mark.parametrize("name", ["api", "worker", "timer"])
def test_programs_run_in_production_after_the_migrations(name: str):
    service = SERVICES[name]
    assert service["environment"]["WAYBILL_ENV"] == "production"
    assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True


def test_migrations_run_once_when_postgres_answers():
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["postgres", "valkey", "api", "worker", "timer"])
def test_every_service_that_stays_has_a_health_check(name: str):
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)


def test_redis_never_drops_a_key_and_keeps_them_over_a_restart():
    command = SERVICES["valkey"]["command"]
    assert option(command, "--maxmemory-policy") == "noeviction"
    assert option(command, "--appendonly") == "yes"
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]


def test_servers_are_reached_from_inside_only():
    assert COMPOSE["networks"]["data"]["internal"] is True
    for name in ("postgres", "valkey"):
        assert SERVICES[name]["networks"] == ["data"]
        assert "ports" not in SERVICES[name]
    assert SERVICES["api"]["ports"] == ["${WAYBILL_BIND:-127.0.0.1}:${WAYBILL_PORT:-8003}:8003"]


def test_a_worker_has_time_to_finish_its_calls():
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > Settings.model_fields["drain_s"].default


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_images_of_others_are_pinned(name: str):
    assert re.fullmatch(r"[a-z/]+:\d+[a-z0-9.-]*", SERVICES[name]["image"])
