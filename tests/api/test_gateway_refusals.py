"""The gateway's error table, row by row, as far as no call has to run for it: status, type, code, param, headers."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.another_api import NO_POSTGRES, NO_REDIS, served
from tests.scene import HELLO, Scene, Team

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
UNZIPPED = "Content-Encoding is not supported: send the body as it is"
UNKNOWN = "The model 'gpt-9' does not exist or you do not have access to it"


def problem(answer: httpx.Response) -> tuple[int, str, Any, Any, str]:
    """Status, type, param, code and message; the rest of what holds for every refusal is checked."""
    said = answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    assert list(said) == ["message", "type", "param", "code", "provider"]
    assert said["provider"] is None
    return answer.status_code, said["type"], said["param"], said["code"], said["message"]


@pytest.mark.parametrize("prefix", ["", "/olla/litellm"])
async def test_what_is_wrong_with_a_request(scene: Scene, team: Team, prefix: str):
    own = {"Authorization": f"Bearer {team.key}"}
    good = {"model": team.models[0], "messages": HELLO}
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    other = {"fallbacks": ["gpt-9"]}
    rows: list[tuple[str, str, dict[str, Any], tuple[Any, ...]]] = [
        ("GET", "/v1/nowhere", {}, (404, "not_found_error", None, 404, "Not Found")),
        ("GET", "/key", {}, (404, "not_found_error", None, 404, "Not Found")),
        ("POST", "/user/nowhere", {}, (404, "not_found_error", None, 404, "Not Found")),
        ("GET", "/team/", {}, (404, "not_found_error", None, 404, "Not Found")),
        ("GET", "/spend/logs", {}, (404, "not_found_error", None, 404, "Not Found")),
        ("GET", "/v1/chat/completions", {}, (405, INVALID, None, 405, "Method Not Allowed")),
        ("DELETE", "/v1/models", {}, (405, INVALID, None, 405, "Method Not Allowed")),
        ("POST", CHAT, {"content": b"{"}, (400, INVALID, None, 400, "JSON decode error at character 1")),
        ("POST", CHAT, {"content": b'{"a": NaN}'}, (400, INVALID, None, 400, "JSON decode error at character 6")),
        ("POST", CHAT, {"content": b"\xff"}, (400, INVALID, None, 400, "JSON decode error at character 0")),
        ("POST", CHAT, {"content": b""}, (400, INVALID, None, 400, "A JSON body is required")),
        ("GET", "/v1/models/", {}, (404, "not_found_error", None, 404, "Not Found")),
        ("POST", CHAT, {"json": good, "zipped": True}, (400, INVALID, None, 400, UNZIPPED)),
        ("POST", CHAT, {"json": good | other}, (404, INVALID, "fallbacks", "model_not_found", UNKNOWN)),
        ("POST", CHAT, {"content": b'{"a": "\\u0000"}'}, (400, INVALID, None, 400, "NUL characters are not allowed")),
        ("POST", CHAT, {"json": {**good, "x": deep}}, (400, INVALID, None, 400, "nesting is over 64 levels")),
        ("POST", CHAT, {"content": b"[]"}, (400, INVALID, None, 400, "Input should be an object")),
        ("POST", CHAT, {"json": {"model": "x"}}, (400, INVALID, "messages", 400, "'messages' is a required property")),
        ("GET", "/v1/models?include_metadata=perhaps", {}, (400, INVALID, "include_metadata", 400, None)),
        ("GET", "/v1/models?a=%00", {}, (400, INVALID, None, 400, "NUL characters are not allowed")),
        (
            "POST",
            CHAT,
            {"json": {**good, "model": "gpt-9"}},
            (404, INVALID, "model", "model_not_found", UNKNOWN),
        ),
    ]  # fmt: skip
    for method, path, sent, expected in rows:
        headers = own | ({"Content-Encoding": "gzip"} if sent.pop("zipped", False) else {})
        answer = await scene.client.request(method, prefix + path, headers=headers, **sent)
        found = problem(answer)
        assert found[:4] == expected[:4], (method, path, sent, found)
        assert expected[4] is None or found[4] == expected[4], found
    wrong_method = await scene.client.put(f"{prefix}/spend/calculate")
    assert wrong_method.headers["allow"] == "GET, HEAD, POST"
    head = await scene.client.head(f"{prefix}/v1/nowhere")
    assert (head.status_code, head.content) == (404, b"")
    assert scene.provider.asked == []


async def test_a_body_over_the_limit(scene: Scene, team: Team):
    async with served(scene, max_body_bytes=1000) as client:
        own = {"x-api-key": team.key}
        announced = await client.post(CHAT, content=b"x" * 1001, headers=own)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x" * 600
            yield b"x" * 600

        unannounced = await client.post(CHAT, content=chunks(), headers=own)
    for answer in (announced, unannounced):
        assert problem(answer) == (413, INVALID, None, 413, "Request body too large")


async def test_teams_that_are_suspended_or_paused(scene: Scene, team: Team):
    await scene.api.post(f"/teams/{team.id}/suspend")
    message = "Team access is suspended. Please contact support."
    assert problem(await ask(scene, team)) == (403, "permission_error", None, 403, message)
    await scene.api.post(f"/teams/{team.id}/resume")

    await scene.api.post(f"/teams/{team.id}/pause", {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat()})
    paused = await ask(scene, team)
    assert problem(paused) == (429, "rate_limit_error", None, 429, "Team access temporarily paused")
    assert paused.headers["retry-after"] == "120", "stock clients wait two minutes at most"


async def test_others_data_and_the_wrong_kind_of_caller(scene: Scene, team: Team):
    other = await scene.team()
    own = {"x-api-key": team.key}
    rows = [
        (await scene.client.get(f"/team/info?team_id={other.id}", headers=own), 403),
        (await scene.client.get("/key/list", headers=own), 403),
        (await scene.client.post("/key/generate", json={}, headers=own), 403),
        (await scene.client.post(CHAT, json={"model": "x", "messages": HELLO}, headers=scene.api.admin), 403),
        (await scene.client.get("/team/info?team_id=unknown", headers=scene.api.admin), 404),
        (await scene.client.get("/user/info?user_id=unknown", headers=scene.api.admin), 404),
    ]
    for answer, status in rows:
        kind = "permission_error" if status == 403 else "not_found_error"
        found = problem(answer)
        assert (found[0], found[1], found[3]) == (status, kind, status), answer.text
        assert other.id not in answer.text


async def test_a_limit_is_told_in_the_words_of_the_proxy(scene: Scene):
    team = await scene.team(rpm_limit=1)
    first, second = await ask(scene, team), await ask(scene, team)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    status, kind, _, code, message = problem(second)
    assert (status, kind, code) == (429, "rate_limit_error", 429)
    assert message.startswith(
        f"Rate limit exceeded for team: {team.id}. Limit type: requests. Current limit: 1, Remaining: 0. "
        "Limit resets at: 20"
    )
    assert message.endswith(f"{second.headers['reset_at']}")
    reset_at = datetime.strptime(second.headers["reset_at"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert reset_at.timestamp() == int(second.headers["x-ratelimit-reset"])
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert second.headers["rate_limit_type"] == "requests"
    assert second.headers["x-ratelimit-reset-requests"].endswith("s")
    assert second.headers["x-olla-model"] == team.models[0]


async def test_what_is_down_is_503_with_the_time_to_come_again(scene: Scene, team: Team):
    unavailable = (503, "service_unavailable", None, 503, "Service temporarily unavailable")
    limited = await scene.team(rpm_limit=5)
    async with served(scene, redis_url=NO_REDIS) as client:
        answer = await ask(scene, limited, client)
        assert problem(answer) == unavailable
        assert answer.headers["retry-after"] == "1"
    async with served(scene, database_url=NO_POSTGRES) as client:
        answer = await ask(scene, team, client)
        assert problem(answer) == unavailable
        assert answer.headers["retry-after"] == "1"


async def ask(scene: Scene, team: Team, client: httpx.AsyncClient | None = None) -> httpx.Response:
    body = {"model": team.models[0], "messages": HELLO}
    return await (client or scene.client).post(CHAT, json=body, headers={"Authorization": f"Bearer {team.key}"})
