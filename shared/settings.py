"""Settings: read once from the environment in each `main`, frozen, checked, passed on in `Runtime`."""

import logging
import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared import providers

VERSION = "0.1.0"

Network = IPv4Network | IPv6Network
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MIN_PRODUCTION_KEY = 32


class Settings(BaseSettings):
    """Every `WAYBILL_*` variable; seconds end in `_s`, bytes in `_bytes`."""

    model_config = SettingsConfigDict(
        env_prefix="WAYBILL_", frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    env: Literal["development", "production"] = "development"
    home: Path = Path(".waybill")
    host: str = "127.0.0.1"
    port: int = 8003
    database_url: str = ""
    redis_url: str = ""
    database_pool: int = Field(default=10, ge=2)
    admin_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    encryption_key: SecretStr = SecretStr("")
    log_level: str = "INFO"
    request_log: bool = True
    metrics_token: SecretStr = SecretStr("")
    """Who reads /metrics has to show it; empty: everybody who gets there may."""

    max_body_bytes: int = 20 * 1024 * 1024
    close_delay_s: float = Field(default=0, ge=0, le=10)
    """How long an api that is told to end still takes connections, so that a balancer sees it is not ready."""
    team_files_mb: int = Field(default=10_240, ge=1)
    """What the files of one team may have together before it uploads no more; output of batches is written anyway."""
    team_batch_lines: int = Field(default=1_000_000, ge=1)
    """Lines of batches of one team that have not ended."""
    team_batch_checks: int = Field(default=100, ge=1)
    """Batches and dry runs of one team that wait for their check."""
    default_wait_s: float = Field(default=120, ge=0)
    cors_origins: Annotated[tuple[str, ...], NoDecode] = (
        "http://localhost:3000",
        "http://localhost:3001",
        "http://localhost:3002",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ("*",)
    default_team: str = "default"
    """The team of keys that `/key/generate` makes without naming one."""
    gateway_anonymous_team: str | None = None
    """Development only: requests to the gateway's model routes without a key act as this team."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks whose X-Forwarded-For is believed; of anybody else it is not even read."""

    workers: int = Field(default=1, ge=1)
    batch_workers: int = Field(default=1, ge=0)
    """Units that do nothing but batches, niced; with none the others do it."""
    worker_pids_file: Path | None = None
    worker_threads: int = Field(default=8, ge=1)
    calls_in_flight: int = Field(default=1000, ge=1)
    deliveries_in_flight: int = Field(default=1000, ge=1)
    lease_s: float = Field(default=30, gt=0)
    sweep_s: float = Field(default=5, gt=0)
    rering_s: float = Field(default=5, gt=0)
    dispatch_s: float = Field(default=0.25, gt=0)
    drain_s: float = Field(default=600, ge=0)
    watchdog_s: float = Field(default=20, gt=0)
    heartbeat_file: Path | None = None

    max_queue_age_s: float = Field(default=60, gt=0)
    call_deadline_s: float = Field(default=3600, gt=0)
    gateway_deadline_s: float = Field(default=600, gt=0)
    job_idle_timeout_s: float = Field(default=86_400, gt=0)
    payload_retention_days: int = Field(default=30, ge=1)
    store_payloads: bool = True
    provider_timeout_s: float = Field(default=600, gt=0)
    provider_connect_timeout_s: float = Field(default=5, gt=0)
    first_chunk_timeout_s: float = Field(default=120, gt=0)
    chunk_timeout_s: float = Field(default=60, gt=0)
    stream_retention_s: int = Field(default=3600, ge=1)
    max_attempts_per_call: int = Field(default=6, ge=1)
    attempts_per_candidate: int = Field(default=3, ge=1)
    retry_backoff_s: float = Field(default=1, ge=0)
    max_worker_deaths: int = Field(default=3, ge=1)
    provider_env_fallback: bool = True
    provider_allow_nets: Annotated[tuple[Network, ...] | None, NoDecode] = None

    webhook_allow_nets: Annotated[tuple[Network, ...] | None, NoDecode] = None
    webhook_allow_http: bool | None = None
    webhook_timeout_s: float = Field(default=15, gt=0)
    webhook_retry_schedule_s: Annotated[tuple[Annotated[float, Field(ge=0)], ...], NoDecode] = (
        5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400,
    )  # fmt: skip
    """Delays between the ten tries of a delivery; each is spread by ± 20 %."""
    webhook_disable_after_s: float = Field(default=432_000, gt=0)
    """An endpoint whose every attempt failed for so long is disabled."""
    webhook_queue_limit: int = Field(default=100_000, ge=1)
    """Deliveries that may wait for one receiver; beyond, new ones are discarded."""

    egress_proxy: str = ""
    """Nothing is sent through a proxy yet: whoever believes in one is told so at the start."""

    event_retention_days: int = Field(default=30, ge=1)
    delivery_retention_days: int = Field(default=30, ge=5, le=90)

    price_map: FilePath | None = None
    """The JSON of bundled prices; None is the one inside the installed litellm. The api's image has no litellm."""

    providers_in_environment: Annotated[tuple[str, ...], NoDecode] = Field(
        default_factory=lambda: providers.with_key(os.environ)
    )
    """Whose keys the workers have; an api on another machine than the workers has to be told."""

    @field_validator("cors_origins", "allowed_hosts", "trusted_proxies", "providers_in_environment", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("provider_allow_nets", "webhook_allow_nets", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @field_validator("webhook_retry_schedule_s", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return tuple(float(part) for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("egress_proxy")
    @classmethod
    def _no_proxy(cls, value: str) -> str:
        if value:
            raise ValueError("not supported yet: webhooks go out directly. Take it out of the environment")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.env == "production":
            for variable, key in (("WAYBILL_ADMIN_KEY", self.admin_key), ("WAYBILL_SECRET_KEY", self.secret_key)):
                if len(key.get_secret_value()) < MIN_PRODUCTION_KEY:
                    raise ValueError(f"{variable} needs {MIN_PRODUCTION_KEY} characters or more in production")
            if not self.encryption_key.get_secret_value():
                raise ValueError("WAYBILL_ENCRYPTION_KEY is required in production")
            if self.gateway_anonymous_team is not None:
                raise ValueError("WAYBILL_GATEWAY_ANONYMOUS_TEAM is for development only")
        return self

    @property
    def team_files_bytes(self) -> int:
        """`team_files_mb` in bytes; a megabyte is 2**20 of them."""
        return self.team_files_mb << 20

    @property
    def provider_networks(self) -> tuple[Network, ...]:
        """Private networks a provider's `api_base` may be in."""
        return self._development_loopback(self.provider_allow_nets)

    @property
    def webhook_networks(self) -> tuple[Network, ...]:
        """Private networks a webhook may be sent to."""
        return self._development_loopback(self.webhook_allow_nets)

    @property
    def webhook_http(self) -> bool:
        """Whether webhook URLs may be plain http."""
        return self.env == "development" if self.webhook_allow_http is None else self.webhook_allow_http

    def _development_loopback(self, networks: tuple[Network, ...] | None) -> tuple[Network, ...]:
        if networks is not None:
            return networks
        return LOOPBACK if self.env == "development" else ()
