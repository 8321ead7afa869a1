"""What the checks of an SDK share. They run in a child process under one line of the SDK, against a running Waybill.

The child is pytest with this module as a plugin and a file that says where Waybill is; test_openai_sdk.py starts it.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.demo import DemoProvider

BASES = ("/v1", "/olla/litellm/v1")
QUESTION = "What is the capital of France?"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A virtual key. alias: what it asks for; model: what the provider is asked for then, a `match` for its scripts."""

    key: str
    alias: str
    model: str
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class World:
    """Where Waybill and its provider are, and the keys that there are to ask with."""

    api_url: str
    control_url: str
    ground_truth: str
    seen: str
    accounts: dict[str, Account]

    def note(self, call_ids: Iterable[str]) -> None:
        """Keep for the parent which calls a client was told of."""
        with Path(self.seen).open("a", encoding="utf-8") as seen:
            seen.writelines(f"{call_id}\n" for call_id in call_ids)

    def told(self) -> set[str]:
        """What was noted."""
        return set(Path(self.seen).read_text(encoding="utf-8").split())

    @classmethod
    def read(cls, file: Path) -> "World":
        """What the parent wrote with `write`."""
        told = json.loads(file.read_bytes())
        accounts = {name: Account(**account) for name, account in told.pop("accounts").items()}
        return cls(accounts=accounts, **told)


@dataclass
class Traffic:
    """What one client sent and got. sent: "POST /v1/..." a request; answers: the responses, bodies not read yet."""

    sent: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    @property
    def call_ids(self) -> list[str]:
        """The calls that the answers are of."""
        return [answer.headers["x-call-id"] for answer in self.answers if "x-call-id" in answer.headers]


class Eager(openai.AsyncOpenAI):
    """The SDK's client; it decides itself whether to try again, and does so at once."""

    traffic: Traffic
    account: Account

    def _calculate_retry_timeout(self, *args: Any, **kwargs: Any) -> float:
        return 0


Connect = Callable[..., Eager]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--world FILE"""
    parser.addoption("--world", type=Path, required=True)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> World:
    return World.read(request.config.getoption("--world"))


@pytest.fixture
async def connect(world: World) -> AsyncIterator[Connect]:
    """`connect(account, base=..., **options)`: a client of the SDK whose traffic is kept; closed after the check."""
    opened: list[Eager] = []

    def _connect(account: str = "main", *, base: str = BASES[0], max_retries: int = 0, **options: Any) -> Eager:
        traffic = Traffic()

        async def sent(request: Any) -> None:
            traffic.sent.append(f"{request.method} {request.url.path}")

        async def answered(response: Any) -> None:
            traffic.answers.append(response)

        known = world.accounts[account]
        hooks = {"request": [sent], "response": [answered]}
        client = Eager(
            base_url=world.api_url + base,
            max_retries=max_retries,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks, trust_env=False, verify=False),
            **{"api_key": known.key, **options},
        )
        client.traffic, client.account = traffic, known
        opened.append(client)
        return client

    yield _connect
    for client in opened:
        world.note(client.traffic.call_ids)
        await client.close()


@pytest.fixture
def client(connect: Connect) -> Eager:
    """The client of the ordinary account, without retries."""
    return connect()


@pytest.fixture
async def provider(world: World) -> AsyncIterator[DemoProvider]:
    async with httpx.AsyncClient(base_url=world.control_url, trust_env=False, verify=False) as control:
        yield DemoProvider(control, Path(world.ground_truth))


async def asked(provider: DemoProvider, match: str) -> dict[str, Any]:
    """The body of the one request that reached the provider."""
    (request,) = await provider.requests(match)
    return request["body"]
