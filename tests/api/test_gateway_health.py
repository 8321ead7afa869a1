"""The gateway's health: from what the database says of models, at most once a second; no provider is asked."""

import asyncio
from typing import Any

import httpx
import pytest

from api.gateway.model_health import ModelHealth
from shared import provider_circuits, tasks
from shared.runtime import Runtime
from tests.api.admin import unique
from tests.api.another_api import NO_POSTGRES, served
from tests.api.people import person
from tests.scene import PRICES, Scene

HEALTH = "/olla/litellm/health"


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """Counts of all models need a database of their own."""
    return fresh_database_url


async def health(scene: Scene, query: str = "", **headers: str) -> httpx.Response:
    """The answer, from a look of its own."""
    scene.app.state.model_health = ModelHealth(scene.rt)
    return await scene.client.get(f"{HEALTH}{query}", headers=headers)


def numbers(answer: httpx.Response) -> list[Any]:
    body = answer.json()
    lists = [len(body["healthy_endpoints"]), len(body["unhealthy_endpoints"])]
    return [answer.status_code, body["status"], body["models"], body["healthy_count"], body["unhealthy_count"], *lists]


async def test_it_tells_which_models_can_be_asked(scene: Scene):
    assert numbers(await health(scene)) == [503, "unhealthy", 0, 0, 0, 0, 0]
    good = (await scene.api.alias(alias=unique("good"), api_key="sk-provider", **PRICES))["alias"]
    await scene.api.alias(active=False)
    local = (await scene.api.alias(litellm_model="ollama/llama", api_base="http://127.0.0.1:11434", **PRICES))["alias"]
    assert numbers(await health(scene)) == [200, "healthy", 2, 2, 0, 0, 0]
    assert (await health(scene)).json()["providers"] == ["ollama", "openai"]

    bare = (await scene.api.alias(alias=unique("bare"), litellm_model="anthropic/claude", **PRICES))["alias"]
    dear = (await scene.api.alias(alias=unique("dear"), litellm_model="openai/unheard-of", api_key="sk-x"))["alias"]
    free = await scene.api.alias(litellm_model="openai/unheard-of", api_key="sk-x", allow_unpriced=True)
    await scene.api.group(group_name="both", model_aliases=[good, bare])
    await scene.api.group(group_name="none", model_aliases=[bare])
    assert numbers(await health(scene)) == [200, "degraded", 5, 3, 2, 0, 0]
    assert numbers(await health(scene, f"?model={good}")) == [200, "healthy", 1, 1, 0, 0, 0]
    assert numbers(await health(scene, "?model=both")) == [200, "degraded", 2, 1, 1, 0, 0]
    assert numbers(await health(scene, "?model=none")) == [503, "unhealthy", 1, 0, 1, 0, 0]
    down = await health(scene, f"?model={bare}")
    assert numbers(down) == [503, "unhealthy", 1, 0, 1, 0, 0]
    assert down.headers["retry-after"] == "1"
    unknown = await health(scene, "?model=unknown")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (await health(scene, "?model=")).status_code == 400

    whole = (await health(scene, **scene.api.admin)).json()
    assert {one["model"] for one in whole["healthy_endpoints"]} == {good, local, free["alias"]}
    assert sorted(whole["unhealthy_endpoints"], key=lambda one: str(one["model"])) == [
        {"model": bare, "provider": "anthropic", "error": "no provider credentials configured for anthropic"},
        {"model": dear, "provider": "openai", "error": "model has no price"},
    ]
    assert (
        len((await health(scene, Authorization=f"Bearer {(await person(scene)).token}")).json()["healthy_endpoints"])
        == 3
    )

    team = await scene.team()
    for secret in (team.key, "sk-unknown"):
        assert numbers(await health(scene, Authorization=f"Bearer {secret}"))[5:] == [0, 0]
    credential = {"organization_id": (await scene.api.get(f"/teams/{team.id}")).json()["organization_id"]}
    for provider, status in (("mistral", 503), ("anthropic", 200)):
        body = {**credential, "provider": provider, "credential_name": provider, "api_key": "sk-x"}
        assert (await scene.api.post("/provider-credentials/create", body)).status_code == 200
        assert numbers(await health(scene, f"?model={bare}"))[0] == status, provider
    assert scene.provider.asked == []


async def test_many_who_ask_share_one_look_a_second(scene: Scene, runtime: Runtime):
    await scene.api.alias(api_key="sk-provider", **PRICES)
    assert {answer.status_code for answer in await asyncio.gather(*(health(scene) for _ in range(5)))} == {200}
    seen = ModelHealth(runtime)
    looks = await asyncio.gather(*(seen.now() for _ in range(50)))
    assert all(look is looks[0] for look in looks)


async def test_it_is_degraded_while_the_workers_are_far_behind(scene: Scene):
    await scene.api.alias(api_key="sk-provider", **PRICES)
    door = scene.app.state.desk.door
    await tasks.end([door._task])
    door.age_s = 61.0
    assert numbers(await health(scene))[:2] == [200, "degraded"]


async def test_a_model_whose_circuit_is_open_is_told_and_can_still_be_asked(scene: Scene):
    alias = (await scene.api.alias(api_key="sk-provider", **PRICES))["alias"]
    async with scene.rt.db.hot_statement() as tx:
        target = provider_circuits.Target("openai", "openai/gpt-4o", f"alias {alias}")
        await provider_circuits.record(tx, [provider_circuits.Failed(target, provider_circuits.OPENS_AFTER, 0)])
    told = await health(scene, f"?model={alias}", **scene.api.admin)
    assert numbers(told) == [200, "degraded", 1, 0, 1, 0, 1]
    assert told.json()["unhealthy_endpoints"][0]["error"] == "its provider fails, the circuit is open"


async def test_without_postgres_it_is_unhealthy_at_once(scene: Scene):
    async with served(scene, database_url=NO_POSTGRES) as client:
        for headers in ({}, {"Authorization": "Bearer sk-unknown"}):
            answer = await client.get(HEALTH, headers=headers)
            assert numbers(answer) == [503, "unhealthy", 0, 0, 0, 0, 0]
        assert (await client.get("/olla/litellm/health/liveness")).status_code == 200
        assert (await client.get("/olla/litellm/health/readiness")).json()["status"] == "unhealthy"


async def test_models_that_are_known_are_told_to_a_caller_who_cannot_be_looked_up(scene: Scene):
    await scene.api.alias(api_key="sk-provider", **PRICES)
    async with served(scene, database_url=NO_POSTGRES) as client:
        app = client._transport.app  # type: ignore[attr-defined]
        app.state.model_health = ModelHealth(scene.rt)
        answer = await client.get(HEALTH, headers={"Authorization": "Bearer sk-unknown"})
        assert numbers(answer) == [200, "healthy", 1, 1, 0, 0, 0]


async def test_the_probes_are_there_under_the_prefix(scene: Scene):
    for path in ("readiness", "liveness", "liveliness"):
        there, here = [await scene.client.get(f"{prefix}/health/{path}") for prefix in ("", "/olla/litellm")]
        assert (there.status_code, there.json()) == (here.status_code, here.json())
