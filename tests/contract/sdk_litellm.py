"""litellm as a client of ours, under both of the names by which it speaks OpenAI's dialect."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import litellm
import pytest
from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients

from tests.contract.sdk_chat import CITY, CLOCK, Verdict, says
from tests.contract.sdk_world import QUESTION, Account, World
from tests.demo import DemoProvider

# What litellm and its imports warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ("litellm_proxy", "openai")
BASE = "/olla/litellm/v1"


class Asker:
    """litellm with one name, our base and one key; no retries of its own."""

    def __init__(self, name: str, world: World, account: str = "main") -> None:
        self.account: Account = world.accounts[account]
        self.options: dict[str, Any] = {
            "model": f"{name}/{self.account.alias}",
            "api_base": world.api_url + BASE,
            "api_key": self.account.key,
            "max_retries": 0,
        }

    async def chat(self, text: str, **fields: Any) -> Any:
        """`acompletion`."""
        return await litellm.acompletion(messages=says(text), **self.options, **fields)


@pytest.fixture(autouse=True)
async def _closed_clients() -> AsyncIterator[None]:
    """litellm keeps its clients; what is left of them at the end of the program is a warning, and so a failure."""
    yield
    await close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()
    # Sockets are closed by the loop's next turn; what it never gets to is collected here, among litellm's own warnings.
    await asyncio.sleep(0.01)
    gc.collect()


@pytest.fixture(params=NAMES)
def asker(request: pytest.FixtureRequest, world: World) -> Asker:
    return Asker(request.param, world)


async def test_a_chat_is_answered_and_our_cost_is_adopted(asker: Asker):
    answer = await asker.chat(QUESTION)

    assert answer.choices[0].message.content == "Paris"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0
    headers = answer._hidden_params["additional_headers"]
    told = float(headers["llm_provider-x-litellm-response-cost"])
    assert told > 0
    assert answer._hidden_params["response_cost"] == pytest.approx(told)
    assert headers["llm_provider-x-litellm-model-group"] == asker.account.alias


async def test_several_choices_and_log_probabilities_arrive(asker: Asker):
    answer = await asker.chat(QUESTION, n=2, logprobs=True, top_logprobs=1)

    assert [choice.message.content for choice in answer.choices] == ["Paris", "Paris (2)"]
    assert [one.token for one in answer.choices[0].logprobs.content] == ["Paris"]


async def test_a_stream_is_put_together_with_its_usage(asker: Asker):
    stream = await asker.chat("30 words", stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    built: Any = litellm.stream_chunk_builder(chunks)

    assert len(chunks) > 20
    assert len(built.choices[0].message.content.split()) == 30
    assert built.choices[0].finish_reason == "stop"
    assert built.usage.prompt_tokens > 0
    assert built.usage.completion_tokens > 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_parallel_tool_calls_arrive(asker: Asker, streamed: bool):
    answer = await asker.chat("use the tools", tools=[CITY, CLOCK], stream=streamed)
    if streamed:
        answer = litellm.stream_chunk_builder([chunk async for chunk in answer])

    calls = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert "city" in json.loads(calls[0].function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_a_schema_is_answered(asker: Asker):
    answer = await asker.chat("capital of Spain", response_format=Verdict)

    assert Verdict.model_validate_json(answer.choices[0].message.content).label == "Madrid"


async def test_embeddings_arrive_as_numbers(asker: Asker):
    answer = await litellm.aembedding(input=["one", "two"], **asker.options)

    assert [(one["index"], len(one["embedding"])) for one in answer.data] == [(0, 1536), (1, 1536)]
    assert all(isinstance(number, float) for one in answer.data for number in one["embedding"])
    assert answer.usage.prompt_tokens > 0


async def test_text_completions_arrive(world: World):
    asker = Asker("openai", world)
    options = asker.options | {"model": f"text-completion-openai/{asker.account.alias}"}

    answer: Any = await litellm.atext_completion(prompt="capital of Italy", **options)

    assert answer.choices[0].text == "Rome"


@pytest.mark.parametrize(
    ("account", "step", "raises", "status"),
    [
        ("broke", None, litellm.APIError, 402),
        ("limited", None, litellm.RateLimitError, 429),
        ("blocked", None, litellm.AuthenticationError, 401),
        ("faults", {"fault": "status", "status": 400}, litellm.BadRequestError, 400),
        ("faults", {"fault": "status", "status": 500}, litellm.BadGatewayError, 502),
    ],
    ids=["money", "rate limit", "key", "refused", "provider error"],
)
async def test_errors_keep_their_status(
    world: World,
    provider: DemoProvider,
    account: str,
    step: dict[str, Any] | None,
    raises: type[Exception],
    status: int,
):
    asker = Asker("litellm_proxy", world, account)
    text = f"litellm {status} {asker.account.model}"
    if step:
        await provider.script(step, match=text, repeat=True)

    with pytest.raises(raises) as raised:
        await asker.chat(text)

    assert getattr(raised.value, "status_code", None) == status
