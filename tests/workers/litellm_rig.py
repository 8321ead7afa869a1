"""What the tests of the litellm provider share: the demo provider's control door, claimed calls, expected failures."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.calls import Claimed
from shared.credentials import Sealer
from shared.settings import Settings
from workers.provider import Provider, ProviderError

LIMIT_S = 20
CANARY = "canary-9f3b71d2c4-key"
SEALER = Sealer(base64.b64encode(b"e" * 32).decode())


class Demo:
    """The demo provider's control door."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.client = client
        self.base = f"{url}/v1"

    async def script(self, *steps: dict[str, Any], **fields: Any) -> None:
        (await self.client.post("/_control/script", json={"steps": steps, **fields})).raise_for_status()

    async def requests(self, **which: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.get("/_control/requests", params=which)).json()["requests"]
        return found

    async def reached(self, **which: Any) -> bool:
        answer = await self.client.get("/_control/wait", params={"timeout": LIMIT_S, **which})
        return bool(answer.raise_for_status().json()["reached"])


def make(library: Any, provider_keys: dict[str, str] | None = None, **settings: Any) -> Any:
    return library.LitellmProvider(Settings(**settings), SEALER, provider_keys or {})


def a_call(
    base: str | None, *, key: str | None = CANARY, question: str = "Capital of France?", **request: Any
) -> Claimed:
    sealed = None if key is None else SEALER.seal(key, purpose="model_aliases.api_key:fast")
    messages = [{"role": "user", "content": question}]
    return Claimed(
        id=uuid4(), job_id=uuid4(), team_id="t1", number=1, model="fast", candidates=["fast"], candidate=0, candidate_attempts=0,
        failures=0, estimated_prompt_tokens=77, estimated_output_tokens=500, created_at=datetime.now(UTC),
        deadline_in_s=3600, request={"messages": messages, **request}, markup_percentage=0, alias="fast",
        litellm_model="openai/gpt-4", provider="openai", api_base=base, api_key_sealed=sealed,
        input_nanousd_per_mtok=None, output_nanousd_per_mtok=None, cached_input_nanousd_per_mtok=None,
        on_unknown="retry",
    )  # fmt: skip


async def failure(provider: Provider, call: Claimed, timeout_s: float = LIMIT_S) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(call, timeout_s=timeout_s)
    return caught.value


def error_body(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def status(status: int, **more: Any) -> dict[str, Any]:
    return {"fault": "status", "status": status, **more}
