"""What the headers of a gateway call say: which model and call, how the choice went, cost, limits and time."""

import re
from typing import Any

import httpx
import pytest

from api.gateway.headers import NAMES, decimal
from tests.api.admin import made, unique
from tests.api.gateway import CHAT, EMBEDDINGS, ask
from tests.scene import COST_NANOUSD, HELLO, PRICES, Scene, refused

ROUTING = ("x-olla-routing-strategy", "x-olla-routing-decision", "x-olla-routing-reason")
OF_THE_END = {
    "x-litellm-attempted-retries",
    "x-litellm-attempted-fallbacks",
    "x-litellm-response-duration-ms",
    "x-litellm-overhead-duration-ms",
    "server-timing",
}


def routing(answer: httpx.Response) -> list[str | None]:
    return [answer.headers.get(name) for name in ROUTING]


async def test_a_success_tells_the_whole_story(scene: Scene):
    team = await scene.team(rpm_limit=10, tpm_limit=100_000)
    terms = {"team_id": team.id, "max_budget": 2.5, "rpm_limit": 7, "tpm_limit": 70_000}
    key = made(await scene.client.post("/key/generate", json=terms, headers=scene.api.admin))["key"]
    first = await ask(team, key=key, x=1, X_Litellm_Call_Id="my-call")
    assert first.status_code == 200, first.text
    headers = first.headers
    model = team.models[0]
    assert headers["x-olla-model"] == headers["x-litellm-model-group"] == model
    assert routing(first) == ["strict", "routed", "model_found"]
    assert headers["x-litellm-call-id"] == "my-call"
    call = await scene.row("select * from calls where team_id = :id", id=team.id)
    assert (headers["x-job-id"], headers["x-call-id"]) == (str(call.job_id), str(call.id))
    assert headers["x-litellm-response-cost"] == decimal(COST_NANOUSD) == "0.0095"
    assert [headers[f"x-litellm-attempted-{what}"] for what in ("retries", "fallbacks")] == ["0", "0"]
    total, overhead = [float(headers[f"x-litellm-{what}-duration-ms"]) for what in ("response", "overhead")]
    assert 0 <= overhead <= total
    assert re.fullmatch(r"queue;dur=[\d.]+, provider;dur=\d+, total;dur=[\d.]+", headers["server-timing"])
    assert [headers[f"x-litellm-key-{what}"] for what in ("spend", "max-budget", "rpm-limit", "tpm-limit")] == [
        "0", "2.5", "7", "70000",
    ]  # fmt: skip
    assert headers["x-ratelimit-limit-requests"] == headers["x-ratelimit-limit"] == "7"
    assert headers["x-ratelimit-remaining-requests"] == headers["x-ratelimit-remaining"] == "6"
    assert headers["x-ratelimit-limit-tokens"] == "70000"
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 70_000
    assert all(re.fullmatch(r"\d+s", headers[f"x-ratelimit-reset-{what}"]) for what in ("requests", "tokens"))
    assert set(re.findall(r'"([\w-]+)";q=', headers["ratelimit-policy"])) == {
        "team-rpm", "team-tpm", "key-rpm", "key-tpm",
    }  # fmt: skip
    known = {name.lower() for name in NAMES} | {"content-type", "content-length", "vary", "x-request-id"}
    assert set(headers) <= known, "a header that browsers may not read"

    scene.app.state.authenticator.forget()
    second = await ask(team, key=key)
    assert second.headers["x-litellm-key-spend"] == "0.0095"
    assert second.headers["x-litellm-call-id"] == second.headers["x-call-id"]


async def test_what_nobody_limits_has_no_headers_of_limits(scene: Scene):
    answer = await ask(await scene.team())
    assert not [name for name in answer.headers if "ratelimit" in name or "-key-" in name]


async def test_a_stream_says_what_is_known_when_it_begins(scene: Scene):
    team = await scene.team(rpm_limit=10)
    answer = await ask(team, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert routing(answer) == ["strict", "routed", "model_found"]
    assert {"x-job-id", "x-call-id", "x-litellm-call-id", "x-litellm-model-group", "x-olla-model"} <= set(
        answer.headers
    )
    assert {"x-ratelimit-limit-requests", "x-olla-response-time", "x-served-by"} <= set(answer.headers)
    assert not {"x-litellm-response-cost", *OF_THE_END} & set(answer.headers)


async def test_an_embedding_has_them_too(scene: Scene):
    answer = await ask(await scene.team(), EMBEDDINGS, input="a")
    assert {"x-olla-model", "x-job-id", "x-litellm-model-group", *ROUTING, *OF_THE_END} <= set(answer.headers)


async def test_retries_and_fallbacks_are_counted(scene: Scene):
    team = await scene.team()
    (first,) = team.models
    second = (await scene.api.alias(alias=unique("second"), api_key="sk-provider", **PRICES))["alias"]
    made(await scene.api.put(f"/model-aliases/{first}", {"fallbacks": [second]}))
    scene.provider.steps = [refused(), refused(again="next")]
    answer = await ask(team)
    assert answer.status_code == 200, answer.text
    assert routing(answer) == ["strict", "fallback", "model_found_fallback"]
    assert [answer.headers[f"x-litellm-attempted-{what}"] for what in ("retries", "fallbacks")] == ["1", "1"]
    assert answer.headers["x-olla-model"] == first


async def test_a_failed_call_says_which_one_it_was(scene: Scene):
    team = await scene.team()
    scene.provider.steps = [refused(again="never")]
    answer = await ask(team)
    assert answer.status_code == 502
    assert {"x-job-id", "x-call-id", "x-litellm-call-id", "x-olla-model", *OF_THE_END} <= set(answer.headers)
    assert "x-litellm-response-cost" not in answer.headers
    assert routing(answer) == ["strict", "routed", "model_found"]

    scene.provider.steps = [refused(again="never")]
    streamed = await ask(team, stream=True)
    assert streamed.status_code == 502
    assert {"x-job-id", "x-call-id", "x-litellm-call-id", "x-olla-model"} <= set(streamed.headers)


async def test_a_model_that_cannot_be_used_says_why(scene: Scene):
    team, other = await scene.team(models=2), await scene.team()
    first, second = team.models
    made(await scene.api.put(f"/model-aliases/{second}", {"active": False}))
    terms = {"team_id": team.id, "models": [second]}
    narrowed = made(await scene.client.post("/key/generate", json=terms, headers=scene.api.admin))["key"]
    rows: list[tuple[str, str | None, int, str]] = [
        ("gpt-9", None, 404, "model_not_found"),
        (other.models[0], None, 403, "model_unavailable"),
        (first, narrowed, 403, "model_unavailable"),
    ]
    for model, key, status, reason in rows:
        answer = await ask(team, key=key, model=model)
        assert answer.status_code == status, answer.text
        assert routing(answer) == ["strict", "rejected", reason]
        assert answer.headers["x-olla-model"] == model
        assert answer.headers["x-olla-endpoint"] == "litellm-gateway"
        assert "x-call-id" not in answer.headers
    bad = await ask(team, temperature=9)
    assert routing(bad) == [None, None, None], "routing did not run"


async def test_a_name_that_no_header_can_hold_is_left_out(scene: Scene):
    team = await scene.team()
    for name in ("größe", "a\r\nX-Evil: 1", "a\tb"):
        body: dict[str, Any] = {"model": name, "messages": HELLO}
        answer = await scene.client.post(CHAT, json=body, headers={"x-api-key": team.key})
        assert answer.status_code in {400, 404}
        assert "x-olla-model" not in answer.headers
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [(0, "0"), (1, "0.000000001"), (123_000, "0.000123"), (10**9, "1"), (1_500_000_000, "1.5"), (10**15, "1000000")],
)
def test_money_is_written_as_a_plain_decimal(nanousd: int, text: str):
    assert decimal(nanousd) == text
