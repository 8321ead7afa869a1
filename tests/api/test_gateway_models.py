"""The models that a key sees, in OpenAI's form: what its team may use, narrowed as the key is, and no more."""

from typing import Any

import httpx

from tests.api.admin import Api, made, unique
from tests.scene import PRICES, Scene

NOT_FOUND = "model_not_found"


async def rows(scene: Scene, key: str, path: str = "/v1/models") -> list[dict[str, Any]]:
    """The rows of the list, as this key sees them."""
    found = made(await scene.client.get(path, headers={"Authorization": f"Bearer {key}"}))
    assert found["object"] == "list"
    data: list[dict[str, Any]] = found["data"]
    return data


async def names(scene: Scene, key: str) -> list[str]:
    """The ids in the list; each of them can be read alone, and is the same there."""
    found = await rows(scene, key)
    for row in found:
        assert made(await one(scene, key, row["id"])) == row
    return [row["id"] for row in found]


async def one(scene: Scene, key: str, name: str) -> httpx.Response:
    return await scene.client.get(f"/v1/models/{name}", headers={"x-api-key": key})


async def alias(api: Api, name: str, **fields: Any) -> str:
    return str((await api.alias(alias=name, api_key="sk-provider", **{**PRICES, **fields}))["alias"])


async def test_aliases_and_groups_of_the_team_are_listed_by_name(scene: Scene):
    word = unique("m")
    paris, rome = await alias(scene.api, f"{word}/b/paris"), await alias(scene.api, f"{word}-c-rome")
    off = await alias(scene.api, f"{word}-off", active=False)
    await alias(scene.api, f"{word}-nobodys")
    group, empty, closed = f"{word}-a-group", f"{word}-empty", f"{word}-closed"
    await scene.api.group(group_name=group, model_aliases=[paris, rome, off])
    await scene.api.group(group_name=empty, model_aliases=[off])
    await scene.api.group(group_name=closed, model_aliases=[rome])
    made(await scene.api.put(f"/model-access-groups/{closed}", {"status": "inactive"}))
    team = await scene.api.team(access_groups=[group, empty, closed])
    key = team["virtual_key"]

    found = await rows(scene, key)
    assert [(row["id"], row["owned_by"]) for row in found] == [
        (group, "waybill"),
        (rome, "openai"),
        (paris, "openai"),
    ]
    assert {tuple(row) for row in found} == {("id", "object", "created", "owned_by")}
    stamp = await scene.row(
        "select extract(epoch from created_at)::bigint as s from model_aliases where alias = :a", a=rome
    )
    assert abs(found[1]["created"] - stamp.s) <= 1
    assert await names(scene, key) == [group, rome, paris]

    for name in (off, empty, closed, f"{word}-nobodys", "unknown", f"{word}/b"):
        refused = await one(scene, key, name)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (404, NOT_FOUND, "model"), name
        assert error["message"] == f"The model '{name}' does not exist or you do not have access to it"
        assert error["type"] == "invalid_request_error"


async def test_metadata_is_told_when_it_is_asked_for(scene: Scene):
    word = unique("m")
    known = await alias(scene.api, f"{word}-1", litellm_model="openai/text-embedding-3-small")
    own = await alias(scene.api, f"{word}-2", litellm_model="openai/gpt-4o", max_output_tokens=77)
    unknown = await alias(scene.api, f"{word}-3", litellm_model="openai/nobody-knows-it")
    group = (await scene.api.group(group_name=f"{word}-4", model_aliases=[known, own, unknown]))["group_name"]
    key = (await scene.api.team(access_groups=[group]))["virtual_key"]
    found = await rows(scene, key, "/v1/models?include_metadata=true")
    assert [[row["mode"], row["max_input_tokens"], row["max_output_tokens"]] for row in found] == [
        ["embedding", 8191, None],
        ["chat", 128000, 77],
        [None, None, None],
        [None, None, None],
    ]
    single = await scene.client.get(f"/olla/litellm/models/{own}?include_metadata=1", headers={"x-api-key": key})
    assert made(single) == found[1]


async def test_a_key_sees_what_it_is_narrowed_to_and_its_own_names(scene: Scene):
    team = await scene.team(models=3)
    held = made(await scene.api.get(f"/teams/{team.id}"))["access_groups"][0]
    first, second, third = team.models
    other = (await scene.team()).models[0]
    named = {"gpt-4": first, "lost": other, second: third}
    rows_of_keys: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [first, second, third, held]),
        ({"models": [first]}, [first, held]),
        ({"models": [held]}, [first, second, third, held]),
        ({"models": [other]}, []),
        ({"aliases": named}, [first, second, third, held, "gpt-4"]),
        ({"aliases": named, "models": [first]}, [first, held, "gpt-4"]),
        ({"aliases": named, "models": ["gpt-4"]}, ["gpt-4"]),
        ({"aliases": {"cheap": first, "dear": second}, "models": ["cheap", third]}, ["cheap", third, held]),
    ]
    for fields, expected in rows_of_keys:
        body = {"team_id": team.id, **fields}
        generated = made(await scene.client.post("/key/generate", json=body, headers=scene.api.admin))
        assert await names(scene, generated["key"]) == sorted(expected), fields
        for name in expected:
            assert (await one(scene, generated["key"], name)).status_code == 200
        assert (await one(scene, generated["key"], other)).status_code == 404
        assert (await one(scene, generated["key"], "lost")).status_code == 404


async def test_a_change_of_a_group_is_seen_at_once(scene: Scene):
    team = await scene.team(models=2)
    held = made(await scene.api.get(f"/teams/{team.id}"))["access_groups"][0]
    made(await scene.api.put(f"/model-access-groups/{held}/models", {"model_aliases": [team.models[1]]}))
    assert await names(scene, team.key) == sorted([team.models[1], held])
