"""Settings: documented, checked at start, and safe in production."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.read_settings import BadSetting, settings_of
from shared.settings import LOOPBACK, Settings

ROOT = Path(__file__).parents[2]
GOOD_KEY = "A" * 43 + "="


def variable(name: str) -> str:
    return f"WAYBILL_{name.upper()}"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_documentation(name: str) -> None:
    assert f"`{variable(name)}`" in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_a_proxy_that_nothing_goes_through_is_refused_at_the_start() -> None:
    with pytest.raises(BadSetting, match="WAYBILL_EGRESS_PROXY: not supported yet"):
        settings_of({"WAYBILL_EGRESS_PROXY": "http://proxy:3128"})
    assert settings_of({"WAYBILL_EGRESS_PROXY": ""}).egress_proxy == ""


def test_production_refuses_to_start_without_keys() -> None:
    with pytest.raises(ValidationError, match="WAYBILL_ADMIN_KEY"):
        Settings(env="production", secret_key="k" * 32, encryption_key=GOOD_KEY)
    with pytest.raises(ValidationError, match="WAYBILL_SECRET_KEY"):
        Settings(env="production", admin_key="k" * 32, secret_key="k" * 31, encryption_key=GOOD_KEY)
    with pytest.raises(ValidationError, match="WAYBILL_ENCRYPTION_KEY"):
        Settings(env="production", admin_key="k" * 32, secret_key="k" * 32)


def test_production_opens_no_private_network_by_itself() -> None:
    production = Settings(env="production", admin_key="k" * 32, secret_key="k" * 32, encryption_key=GOOD_KEY)
    assert production.webhook_networks == production.provider_networks == ()
    assert not production.webhook_http
    development = Settings()
    assert development.webhook_networks == development.provider_networks == LOOPBACK


def test_lists_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYBILL_WEBHOOK_ALLOW_NETS", "10.0.0.0/8, ::1/128")
    monkeypatch.setenv("WAYBILL_WEBHOOK_RETRY_SCHEDULE_S", "1,2.5")
    monkeypatch.setenv("WAYBILL_CORS_ORIGINS", "https://a.example, https://b.example")
    read = Settings()
    assert [str(net) for net in read.webhook_networks] == ["10.0.0.0/8", "::1/128"]
    assert read.webhook_retry_schedule_s == (1.0, 2.5)
    assert read.cors_origins == ("https://a.example", "https://b.example")


def test_keys_do_not_show_when_settings_are_printed() -> None:
    assert "s3cret" not in repr(Settings(admin_key="s3cret", secret_key="s3cret", encryption_key="s3cret"))


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize(
    "name",
    ["call_deadline_s", "job_idle_timeout_s", "provider_timeout_s", "provider_connect_timeout_s", "webhook_timeout_s"],
)
def test_a_time_that_is_none_is_refused_at_the_start(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable(name)):
        settings_of({variable(name): value})


@pytest.mark.parametrize("value", ["-1", "nan", "5,-1", "inf"])
@pytest.mark.parametrize("name", ["webhook_retry_schedule_s", "default_wait_s"])
def test_a_pause_that_is_none_is_refused_at_the_start(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable(name)):
        settings_of({variable(name): value})
