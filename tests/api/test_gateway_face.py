"""How the gateway knows its callers, what a key may do by its type and routes, and which headers every answer has."""

import re
from itertools import pairwise
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from api.app import API, GATEWAY
from api.auth import TEAM_ACCESS
from api.gateway.headers import NAMES
from api.http import given_of
from shared.settings import VERSION, Settings
from tests.api.admin import unique
from tests.api.another_api import served
from tests.api.people import person
from tests.scene import Scene, Team

MODELS = "/v1/models"
KEY_HEADERS = ("API-Key", "x-api-key", "x-goog-api-key", "Ocp-Apim-Subscription-Key", "x-litellm-api-key")
ALWAYS = ("x-olla-request-id", "x-request-id", "x-served-by", "via")
OF_A_ROUTE = ("x-olla-endpoint", "x-olla-backend-type", "x-olla-response-time")
NEEDS_KEY = "This endpoint needs a team virtual key"
NOT_ALLOWED = "API key is not allowed to use this route"


async def get(scene: Scene, path: str, **headers: str) -> httpx.Response:
    return await scene.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def key_with(scene: Scene, team: Team, **fields: Any) -> str:
    """A further key of the team, its type and routes as they are told."""
    key_type = fields.pop("key_type", "default")
    answer = await scene.api.post(f"/teams/{team.id}/keys", fields)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    await scene.rows("update virtual_keys set key_type = :t where id = :id returning id", t=key_type, id=made["key_id"])
    secret: str = made["virtual_key"]
    return secret


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and message of a refusal in the envelope."""
    return answer.status_code, answer.json()["error"]["message"]


async def test_a_key_is_found_in_the_headers_of_all_kinds_of_clients(scene: Scene, team: Team):
    for name in KEY_HEADERS:
        assert (await get(scene, MODELS, **{name: team.key})).status_code == 200, name
        assert (await get(scene, MODELS, **{name: f"Bearer {team.key}"})).status_code == 200, name
    assert (await get(scene, MODELS, Authorization=f"bearer {team.key}")).status_code == 200
    assert (await get(scene, MODELS, Authorization="Basic eDp5", x_api_key=team.key)).status_code == 200
    assert (await get(scene, MODELS, API_Key="", x_api_key=team.key)).status_code == 200

    first = ("Authorization", *KEY_HEADERS)
    for before, after in pairwise(first):
        wrong = "Bearer sk-unknown" if before == "Authorization" else "sk-unknown"
        answer = await get(scene, MODELS, **{before: wrong, after: team.key})
        assert told(answer) == (401, "Invalid API key"), (before, after)


async def test_an_admin_is_known_by_the_admin_key_in_any_of_them_and_by_a_session(scene: Scene):
    admin_key = scene.api.admin["X-Admin-Key"]
    for name in (*KEY_HEADERS, "X-Admin-Key"):
        assert (await get(scene, "/key/list", **{name: admin_key})).status_code == 200, name
        assert told(await get(scene, MODELS, **{name: admin_key})) == (403, NEEDS_KEY), name
    owner, reader = await person(scene, "owner"), await person(scene, "user")
    for session, status in ((owner, 400), (reader, 403)):
        own = {"Authorization": f"Bearer {session.token}"}
        assert (await scene.client.get("/key/list", headers=own)).status_code == 200
        assert (await scene.client.get(MODELS, headers=own)).status_code == 403
        assert (await scene.client.post("/key/generate", json={"max_budget": -1}, headers=own)).status_code == status


async def test_who_is_not_let_in_is_told_why(scene: Scene, team: Team):
    rows: list[tuple[str, dict[str, str], str, int | str]] = [
        (MODELS, {}, "No API key provided. Expected: 'Authorization: Bearer sk-xxx...'", 401),
        (MODELS, {"Authorization": "Basic eDp5"}, "Invalid Authorization header format. Expected: ", 401),
        (MODELS, {"Authorization": "Bearer sk-unknown"}, "Invalid API key", 401),
        (MODELS, {"X-Admin-Key": "wrong"}, "Invalid admin API key", 401),
        ("/key/list", {}, "Authentication required. Provide either ", 401),
        ("/key/list", {"Authorization": "Bearer sk-unknown"}, "Invalid or expired token", 401),
        (MODELS, {"x-api-key": await key_with(scene, team, blocked=True)}, "API key is blocked", "key_blocked"),
        (MODELS, {"x-api-key": await expired_key(scene, team)}, "API key has expired", "expired_key"),
    ]
    for path, headers, message, code in rows:
        answer = await scene.client.get(path, headers=headers)
        said = answer.json()["error"]
        assert answer.status_code == 401
        assert said["message"].startswith(message), said
        assert (said["type"], said["param"], said["code"]) == ("authentication_error", None, code)
        assert answer.headers["www-authenticate"] == "Bearer"


async def expired_key(scene: Scene, team: Team) -> str:
    secret = await key_with(scene, team)
    sql = "update virtual_keys set expires_at = app_now() where team_id = :team and hint = :hint returning id"
    await scene.rows(sql, team=team.id, hint=f"sk-...{secret[-4:]}")
    return secret


TYPES = {
    "llm_api": {"/v1", "/api/jobs", "/api/models", "/api/model-aliases"},
    "management": {"/key", "/user", "/team", "/spend", "/api/teams", "/api/organizations", "/api/credits"},
}


async def test_the_type_of_a_key_says_which_of_its_teams_routes_it_opens(scene: Scene, team: Team):
    routes = [(method, path, to) for method, path, to in GATEWAY] + [(m, f"/api{p}", to) for m, p, to in API]
    opened = [(method, path) for method, path, to in routes if given_of(to).access in TEAM_ACCESS]
    for key_type in ("default", "llm_api", "management", "read_only"):
        own = {"Authorization": f"Bearer {await key_with(scene, team, key_type=key_type)}"}
        for method, path in opened:
            named = re.sub(r"{\w+(:\w+)?}", "x", path)
            answer = await scene.client.request(method, named, content=b"[]", headers=own)
            below = any(named == above or named.startswith(f"{above}/") for above in TYPES.get(key_type, ()))
            allowed = method == "GET" if key_type == "read_only" else below or key_type not in TYPES
            refused = answer.status_code == 403 and NOT_ALLOWED in answer.text
            assert refused != allowed, (key_type, method, path, answer.text)


async def test_a_route_that_a_key_is_narrowed_to_has_one_name_under_all_prefixes(scene: Scene, team: Team):
    names = ["/v1/models", "/olla/litellm/v1/models", "/olla/litellm/models"]
    for spelling in (*names, "/v1/*", "/v1"):
        own = {"x-api-key": await key_with(scene, team, allowed_routes=[spelling])}
        for name in names:
            assert (await scene.client.get(name, headers=own)).status_code == 200, (spelling, name)
        for other in ("/key/info", "/olla/litellm/spend/calculate"):
            assert told(await scene.client.get(other, headers=own)) == (403, NOT_ALLOWED), (spelling, other)
    own = {"Authorization": f"Bearer {await key_with(scene, team, allowed_routes=['/api/v1/credits'])}"}
    for prefix in ("/api", "/api/v1"):
        assert (await scene.client.get(f"{prefix}/credits/balance", headers=own)).status_code == 200
        assert (await scene.client.get(f"{prefix}/jobs", headers=own)).status_code == 403
    assert told(await scene.client.get("/v1/models", headers=own)) == (403, NOT_ALLOWED)


async def test_a_development_server_may_let_requests_without_a_key_act_as_a_team(scene: Scene, team: Team):
    async with served(scene, gateway_anonymous_team=team.id) as client:
        listed = await client.get("/olla/litellm/v1/models")
        assert team.models[0] in [row["id"] for row in listed.json()["data"]]
        for path in ("/v1/models", "/olla/litellm/models", "/olla/litellm/key/info", "/api/jobs"):
            assert (await client.get(path)).status_code == 401, path
        wrong = await client.get("/olla/litellm/v1/models", headers={"x-api-key": "sk-unknown"})
        assert told(wrong) == (401, "Invalid API key")
    async with served(scene, gateway_anonymous_team=unique("nobody")) as client:
        assert (await client.get("/olla/litellm/v1/models")).status_code == 401


def test_production_lets_nobody_act_as_a_team():
    secret = "x" * 32
    with pytest.raises(ValidationError, match="WAYBILL_GATEWAY_ANONYMOUS_TEAM is for development only"):
        Settings(
            env="production",
            admin_key=secret,  # type: ignore[arg-type]
            secret_key=secret,  # type: ignore[arg-type]
            encryption_key=secret,  # type: ignore[arg-type]
            gateway_anonymous_team="default",
        )


async def test_every_answer_says_where_it_comes_from(scene: Scene, team: Team):
    own = {"x-api-key": team.key, "X-Request-ID": "mine-1"}
    for path, status in ((MODELS, 200), (f"{MODELS}/unknown", 404), ("/olla/litellm/health/liveness", 200)):
        answer = await scene.client.get(path, headers=own)
        assert answer.status_code == status
        assert answer.headers["x-olla-request-id"] == answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-olla-endpoint"] == "litellm-gateway"
        assert answer.headers["x-olla-backend-type"] == "litellm"
        assert re.fullmatch(r"\d+\.\d{3}s", answer.headers["x-olla-response-time"])
        assert answer.headers["x-served-by"] == f"waybill/{VERSION}"
        assert answer.headers["via"] == f"1.1 waybill/{VERSION}"

    stranger = await scene.client.post(MODELS)
    assert stranger.status_code == 405
    assert {*ALWAYS, *OF_A_ROUTE} <= set(stranger.headers)
    nowhere = await scene.client.get("/v1/nowhere")
    assert set(ALWAYS) <= set(nowhere.headers)
    assert not set(OF_A_ROUTE) & set(nowhere.headers), "no route was found"
    assert nowhere.headers["x-olla-request-id"] == nowhere.headers["x-request-id"]
    native = await scene.client.get("/api/jobs", headers=own)
    assert not [name for name in native.headers if name.startswith("x-olla")]


async def test_browsers_may_read_all_of_them_and_are_refused_in_the_envelope(scene: Scene):
    listed = await scene.client.get(MODELS, headers={"Origin": "http://localhost:3000"})
    exposed = {name.lower() for name in listed.headers["access-control-expose-headers"].split(", ")}
    assert {name.lower() for name in NAMES} <= exposed
    sent = "authorization, content-type, x-litellm-api-key, x-stainless-lang, x-stainless-retry-count"
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    answer = await scene.client.options(
        "/v1/chat/completions", headers={**preflight, "Access-Control-Request-Headers": sent}
    )
    assert answer.status_code == 200, "OpenAI's client in a browser"
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await scene.client.options("/olla/litellm/v1/chat/completions", headers=preflight)
    assert told(answer) == (400, "Disallowed CORS origin")
    assert "access-control-allow-origin" not in answer.headers


async def test_another_host_is_refused_in_the_dialect_of_the_path(scene: Scene):
    async with served(scene, allowed_hosts=("api.example", "*.sub.example")) as client:
        client.event_hooks = {}
        assert told(await client.get(MODELS)) == (400, "Invalid host header")
        assert (await client.get("/health")).json() == {"detail": "Invalid host header"}
        for host, status in (
            ("api.example", 200),
            ("API.example:8003", 200),
            ("a.sub.example", 200),
            ("sub.example", 400),
            ("evil-api.example", 400),
            ("[::1", 400),
            ("", 400),
        ):
            assert (await client.get("/health", headers={"Host": host})).status_code == status, host
