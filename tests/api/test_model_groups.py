"""Model groups: the older words for access groups, with priorities, new aliases, and where a call would go."""

import asyncio

import pytest

from api.model_bodies import columns_of_name
from shared import model_aliases
from tests.api.admin import Api, made, refusal, unique, wrong_place
from tests.scene import HELLO, Scene
from tests.waiting import until

PATH = "/model-groups"


async def test_a_group_takes_aliases_and_makes_the_ones_that_are_missing(api: Api):
    name, there = unique("group"), (await api.alias())["alias"]
    new, vendor = unique("own-model"), f"anthropic/{unique('claude')}"
    models = [{"model_name": new, "priority": 2}, {"model_name": there}, {"model_name": vendor, "priority": 1}]
    group = made(await api.post(f"{PATH}/create", {"group_name": name, "description": "d", "models": models}))

    assert group == {
        "model_group_id": group["model_group_id"],
        "group_name": name,
        "display_name": name,
        "description": "d",
        "status": "active",
        "models": [
            {
                "id": model["id"],
                "model_group_id": group["model_group_id"],
                "model_name": named,
                "priority": priority,
                "is_active": True,
                "created_at": model["created_at"],
            }
            for model, (named, priority) in zip(group["models"], [(there, 0), (vendor, 1), (new, 2)], strict=True)
        ],
    }
    assert made(await api.get(f"{PATH}/{name}")) == group
    assert made(await api.get(f"/models/{vendor}"))["litellm_model"] == vendor
    assert made(await api.get(f"/models/{new}"))["litellm_model"] == f"openai/{new}"
    access = made(await api.get(f"/model-access-groups/{name}"))
    assert [(one["alias"], one["priority"]) for one in access["model_aliases"]] == [(there, 0), (vendor, 1), (new, 2)]
    again = await api.post(f"{PATH}/create", {"group_name": name, "models": []})
    assert refusal(again) == (400, f"Model group '{name}' already exists")


async def test_a_model_the_price_map_knows_keeps_its_name_and_price(api: Api):
    models = [{"model_name": "gpt-4o-mini"}, {"model_name": "claude-sonnet-4-5"}, {"model_name": "claude-2-old"}]
    made(await api.post(f"{PATH}/create", {"group_name": unique("group"), "models": models}))
    for name, provider in (("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic")):
        alias = made(await api.get(f"/models/{name}"))
        assert (alias["litellm_model"], alias["provider"], alias["price_source"]) == (name, provider, "bundled")
    assert made(await api.get("/models/claude-2-old"))["litellm_model"] == "anthropic/claude-2-old"


@pytest.mark.parametrize("bare", [True, False])
async def test_models_are_replaced_by_a_list_or_an_object(api: Api, bare: bool):
    a, b = [(await api.alias())["alias"] for _ in range(2)]
    name = (await api.group(model_aliases=[a]))["group_name"]
    models = [{"model_name": a, "priority": 5}, {"model_name": b, "priority": 3}]
    found = made(await api.put(f"{PATH}/{name}/models", models if bare else {"models": models}))
    assert set(found) == {"group_name", "models"}
    assert [(one["model_name"], one["priority"]) for one in found["models"]] == [(b, 3), (a, 5)]
    assert found["models"] == made(await api.get(f"{PATH}/{name}"))["models"]


async def test_a_model_deleted_meanwhile_is_told_of(scene: Scene):
    """While the request waits for another that makes its second model, its first one is deleted."""
    first, second = (await scene.api.alias())["alias"], unique("zz-the-last")
    group = (await scene.api.group())["group_name"]
    models = [{"model_name": first}, {"model_name": second}]
    async with scene.rt.db.transaction() as tx:
        await model_aliases.create(tx, columns_of_name(scene.rt.prices, second))
        change = asyncio.create_task(scene.api.put(f"{PATH}/{group}/models", models))
        await until_locked(scene)
        made(await scene.api.send("DELETE", f"/model-aliases/{first}"))
    assert refusal(await change) == (404, f"Model alias '{first}' not found")
    assert made(await scene.api.get(f"{PATH}/{group}"))["models"] == []


async def test_a_model_being_deleted_does_not_join_a_group(scene: Scene):
    alias, group = (await scene.api.alias())["alias"], (await scene.api.group())["group_name"]
    async with scene.rt.db.transaction() as tx:
        await model_aliases.delete(tx, alias)
        path = f"/model-access-groups/{group}/models"
        change = asyncio.create_task(scene.api.put(path, {"model_aliases": [alias]}))
        await until_locked(scene)
    assert refusal(await change) == (404, f"Model alias '{alias}' not found")


async def test_what_is_wrong_is_told_at_its_place(api: Api):
    group = (await api.group())["group_name"]
    assert wrong_place(await api.post(f"{PATH}/create", {"group_name": unique("group")})) == ["body", "models"]
    wrong = [{"model_name": "ok"}, {"model_name": "a b"}]
    assert wrong_place(await api.put(f"{PATH}/{group}/models", wrong)) == ["body", "models", 1, "model_name"]
    assert wrong_place(await api.put(f"{PATH}/{group}/models", {})) == ["body", "models"]


async def test_the_list_holds_active_groups_only(api: Api):
    on, off = [(await api.group())["group_name"] for _ in range(2)]
    made(await api.put(f"/model-access-groups/{off}", {"status": "inactive"}))
    answer = await api.get(f"{PATH}?limit=1000")
    names = [group["group_name"] for group in answer.json()]
    assert on in names
    assert off not in names
    assert int(answer.headers["x-total-count"]) >= len(names)


async def test_a_group_of_teams_is_not_deleted(api: Api):
    group = (await api.group())["group_name"]
    for _ in range(2):
        await api.team(access_groups=[group])
    text = f"Cannot delete model group '{group}'. It is assigned to 2 team(s)."
    assert refusal(await api.send("DELETE", f"{PATH}/{group}")) == (400, text)
    free = (await api.group())["group_name"]
    assert made(await api.send("DELETE", f"{PATH}/{free}")) == {"message": f"Model group '{free}' deleted successfully"}
    unknown = (404, f"Model group '{free}' not found")
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("PUT", "/models", []),
        ("GET", "/resolve", None),
    ):
        team = f"?team_id={(await api.team())['team_id']}" if path == "/resolve" else ""
        assert refusal(await api.send(method, f"{PATH}/{free}{path}{team}", body)) == unknown


async def test_resolve_says_where_a_call_goes(api: Api):
    a, b, c = [(await api.alias())["alias"] for _ in range(3)]
    group = (await api.group(model_aliases=[b, a, c]))["group_name"]
    await api.put(f"/models/{a}", {"active": False})
    team, other = await api.team(access_groups=[group]), await api.team()
    path = f"{PATH}/{group}/resolve"

    found = {"group_name": group, "primary_model": b, "fallback_models": [c], "team_has_access": True}
    assert made(await api.get(path, key=team["virtual_key"])) == found
    assert made(await api.get(f"{path}?team_id={team['team_id']}")) == found
    closed = {"group_name": group, "primary_model": None, "fallback_models": None, "team_has_access": False}
    no_access = f"Team '{other['team_id']}' does not have access to model group '{group}'"
    assert made(await api.get(path, key=other["virtual_key"])) == {**closed, "error": no_access}
    foreign = await api.get(f"{path}?team_id={team['team_id']}", key=other["virtual_key"])
    assert refusal(foreign) == (403, "Cannot resolve model group for a different team")
    assert wrong_place(await api.get(path)) == ["query", "team_id"]
    assert refusal(await api.get(f"{path}?team_id=nobody")) == (404, "Team 'nobody' not found")

    for alias in (b, c):
        await api.put(f"/models/{alias}", {"active": False})
    empty = {**found, "primary_model": None, "fallback_models": []}
    none = f"No active models configured for group '{group}'"
    assert made(await api.get(path, key=team["virtual_key"])) == {**empty, "error": none}
    await api.put(f"/model-access-groups/{group}", {"status": "inactive"})
    inactive = f"Model group '{group}' not found or inactive"
    assert made(await api.get(path, key=team["virtual_key"])) == {**closed, "error": inactive}


async def test_a_call_that_asks_for_the_group_takes_its_models_in_order(scene: Scene):
    team = await scene.team(models=2)
    first, second = team.models
    group = unique("group")
    models = [{"model_name": first, "priority": 9}, {"model_name": second, "priority": 1}]
    made(await scene.api.post(f"{PATH}/create", {"group_name": group, "models": models}))
    made(await scene.api.put(f"/teams/{team.id}/model-groups", {"model_groups": [group]}))
    job = await team.job()
    done = await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO, "model_group": group})
    assert done.status_code == 200, done.text
    assert [call.candidates for call in scene.provider.asked] == [[second, first]]


async def until_locked(scene: Scene) -> None:
    """Return when somebody waits for a lock."""

    async def waits() -> bool:
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return bool(await scene.rows(waiting))

    await until(waits, "the change to wait", timeout_s=5)
