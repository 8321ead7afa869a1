"""Aliases and access groups as admins list, change and delete them; what a call then gets to hear."""

from typing import Any
from urllib.parse import quote

import pytest

from shared.runtime import Runtime
from tests.api.admin import ALIASES, Api, made, refusal, unique, wrong_place
from tests.scene import HELLO, Scene
from tests.waiting import until

GROUPS = "/model-access-groups"


async def names_at(api: Api, path: str, field: str = "alias") -> list[str]:
    answer = await api.get(path)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["x-total-count"]) >= len(answer.json())
    return [found[field] for found in answer.json()]


@pytest.mark.parametrize("prefix", ALIASES)
async def test_aliases_are_listed_newest_first_by_filter_and_page(api: Api, prefix: str):
    group = (await api.group())["group_name"]
    a = (await api.alias(access_groups=[group]))["alias"]
    b = (await api.alias(access_groups=[group], litellm_model="anthropic/claude-x"))["alias"]
    c = (await api.alias(access_groups=[group], active=False))["alias"]
    await api.alias()

    assert await names_at(api, f"{prefix}?access_group={group}") == [c, b, a]
    assert await names_at(api, f"{prefix}?access_group={group}&status=ACTIVE") == [b, a]
    assert await names_at(api, f"{prefix}?access_group={group}&status=inactive") == [c]
    assert await names_at(api, f"{prefix}?access_group={group}&provider=anthropic") == [b]
    page = await api.get(f"{prefix}?access_group={group}&limit=1&offset=1")
    assert [found["alias"] for found in page.json()] == [b]
    assert page.headers["x-total-count"] == "3"
    assert "offset=2" in page.headers["link"]
    assert page.json() == [
        {name: value for name, value in made(await api.get(f"{prefix}/{b}")).items() if name != "usage_stats"}
    ]


async def test_wrong_filters_are_told(api: Api):
    for path in (ALIASES[0], GROUPS):
        wrong = await api.get(f"{path}?status=zzz")
        assert refusal(wrong) == (400, "Invalid status: zzz. Must be one of: active, inactive")
    status, detail = refusal(await api.get("/models?provider=zzz"))
    assert status == 400
    assert detail.startswith("Invalid provider: zzz. Must be one of: openai, ")
    assert wrong_place(await api.get("/models?limit=0")) == ["query", "limit"]


async def test_lists_are_for_admins(api: Api):
    team = await api.team()
    for path in (*ALIASES, GROUPS, "/model-groups"):
        assert refusal(await api.get(path, key=team["virtual_key"])) == (403, "Admin access required")


@pytest.mark.parametrize("prefix", ALIASES)
async def test_a_deleted_alias_leaves_groups_and_fallbacks(api: Api, prefix: str):
    name = f"{unique('vendor')}/gpt-4"
    gone = (await api.alias(alias=name))["alias"]
    other = (await api.alias(fallbacks=[gone]))["alias"]
    group = (await api.group(model_aliases=[gone, other]))["group_name"]

    deleted = await api.send("DELETE", f"{prefix}/{gone}")
    assert made(deleted) == {"message": f"Model alias '{gone}' deleted successfully"}
    assert [member["alias"] for member in made(await api.get(f"{GROUPS}/{group}"))["model_aliases"]] == [other]
    assert made(await api.get(f"/models/{other}"))["fallbacks"] == []
    again = await api.send("DELETE", f"{prefix}/{gone}")
    assert refusal(again) == (404, f"Model alias '{gone}' not found")


async def test_a_fallback_must_be_an_alias(api: Api):
    alias = await api.alias()
    unknown = (404, "Model alias 'nobody' not found")
    body = {"alias": unique("alias"), "litellm_model": "openai/gpt-4o", "fallbacks": ["nobody"]}
    assert refusal(await api.post("/models/create", body)) == unknown
    assert (await api.get(f"/models/{body['alias']}")).status_code == 404
    changed = {"fallbacks": [alias["alias"], "nobody"], "description": "never"}
    assert refusal(await api.put(f"/models/{alias['alias']}", changed)) == unknown
    assert made(await api.get(f"/models/{alias['alias']}"))["description"] is None


async def test_groups_are_listed_with_their_counts(api: Api):
    alias = (await api.alias())["alias"]
    group = await api.group(model_aliases=[alias])
    await api.team(access_groups=[group["group_name"]])
    off = await api.group()
    made(await api.put(f"{GROUPS}/{off['group_name']}", {"status": "inactive"}))

    [found] = [one for one in (await api.get(GROUPS)).json() if one["group_name"] == group["group_name"]]
    assert found == {**made(await api.get(f"{GROUPS}/{group['group_name']}")), "model_count": 1, "team_count": 1}
    assert off["group_name"] not in await names_at(api, f"{GROUPS}?status=active", "group_name")
    assert off["group_name"] in await names_at(api, f"{GROUPS}?status=inactive", "group_name")


async def test_a_group_changes_in_the_fields_given(api: Api):
    a, b = [(await api.alias())["alias"] for _ in range(2)]
    group = await api.group(description="old", model_aliases=[a])
    path = f"{GROUPS}/{group['group_name']}"
    changed = made(await api.put(path, {"display_name": "Chat"}))
    assert changed == {**group, "display_name": "Chat", "updated_at": changed["updated_at"]}
    cleared = made(await api.put(path, {"display_name": None, "description": None, "model_aliases": [b, a]}))
    assert (cleared["display_name"], cleared["description"]) == (group["group_name"], None)
    assert [member["alias"] for member in cleared["model_aliases"]] == [b, a]
    assert wrong_place(await api.put(path, {"status": "zzz"})) == ["body", "status"]


async def test_models_join_at_the_end_and_leave_and_a_repeat_is_no_error(api: Api):
    a, b, c = [(await api.alias())["alias"] for _ in range(3)]
    group = await api.group(model_aliases=[a])
    path = f"{GROUPS}/{group['group_name']}"

    async def members(step: str, aliases: list[str]) -> list[str]:
        answer = made(await api.post(f"{path}/{step}", {"model_aliases": aliases}))
        return [member["alias"] for member in answer["model_aliases"]]

    assert await members("add-models", [c, b]) == [a, c, b]
    assert await members("add-models", [a, b]) == [a, c, b]
    assert await members("remove-models", [c, a]) == [b]
    assert await members("remove-models", [c]) == [b]
    unknown = await api.post(f"{path}/add-models", {"model_aliases": [a, "nobody"]})
    assert refusal(unknown) == (404, "Model alias 'nobody' not found")
    assert await members("remove-models", []) == [b]


async def test_a_group_in_use_is_not_deleted(api: Api):
    group = (await api.group())["group_name"]
    team = await api.team(access_groups=[group])
    used = await api.send("DELETE", f"{GROUPS}/{group}")
    in_use = f"Cannot delete access group '{group}' - still in use by teams: {team['team_id']}"
    assert refusal(used) == (400, in_use)
    free = (await api.group(model_aliases=[(await api.alias())["alias"]]))["group_name"]
    gone = await api.send("DELETE", f"{GROUPS}/{free}")
    assert made(gone) == {"message": f"Model access group '{free}' deleted successfully"}
    assert (await api.get(f"{GROUPS}/{free}")).status_code == 404


@pytest.mark.parametrize("name", ["nobody", "a%00b"])
async def test_unknown_groups_are_404_in_every_route(api: Api, name: str):
    text = f"Model access group '{name.replace('%00', chr(0))}' not found"
    answers = [
        await api.put(f"{GROUPS}/{name}", {"description": "x"}),
        await api.post(f"{GROUPS}/{name}/add-models", {"model_aliases": []}),
        await api.post(f"{GROUPS}/{name}/remove-models", {"model_aliases": []}),
        await api.send("DELETE", f"{GROUPS}/{name}"),
    ]
    assert [refusal(answer) for answer in answers] == [(404, text)] * 4


async def test_every_change_is_on_record_without_secrets(api: Api, runtime: Runtime):
    alias, group = unique("alias"), unique("group")
    secret, url = "sk-provider-very-secret", "http://127.0.0.1:4010/v1?token=hidden"
    await api.alias(alias=alias, api_key=secret, api_base=url)
    made(await api.put(f"/models/{alias}", {"api_key": secret, "api_base": url}))
    await api.group(group_name=group)
    made(await api.put(f"{GROUPS}/{group}", {"description": "x"}))
    made(await api.put(f"{GROUPS}/{group}/models", {"model_aliases": [alias]}))
    for step in ("add-models", "remove-models"):
        made(await api.post(f"{GROUPS}/{group}/{step}", {"model_aliases": [alias]}))
    made(await api.send("DELETE", f"{GROUPS}/{group}"))
    made(await api.send("DELETE", f"/models/{alias}"))
    async with runtime.db.statement() as tx:
        rows = await tx.exec_driver_sql(
            "select action, user_id, details::text as details from audit_log where resource_id in (%s, %s) order by id",
            (alias, group),
        )
        lines = rows.all()
    verbs = ["created_alias", "updated_alias", "created_access_group", *["updated_access_group"] * 4]
    assert [line.action for line in lines] == [*verbs, "deleted_access_group", "deleted_alias"]
    assert {line.user_id for line in lines} == {"admin_key"}
    assert not any("secret" in line.details or "hidden" in line.details for line in lines)


@pytest.mark.parametrize("path", ["/models/create", f"{GROUPS}/create", "/model-groups/create"])
async def test_a_repeated_create_is_answered_as_the_first(api: Api, path: str):
    name = unique("thing")
    body: dict[str, Any] = {"litellm_model": "openai/gpt-4o", "models": []}
    body["alias" if path.startswith("/models") else "group_name"] = name
    headers = {**api.admin, "Idempotency-Key": unique("once")}
    answers = [await api.client.post(f"/api{path}", json=body, headers=headers) for _ in range(2)]
    assert made(answers[0]) == made(answers[1])
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert "already exists" in refusal(await api.post(path, body))[1]


async def test_usage_counts_the_calls_that_asked_for_the_alias(scene: Scene):
    team = await scene.team()
    alias = team.models[0]
    for model in (alias, alias):
        job = await team.job()
        done = await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO, "model": model})
        assert done.status_code == 200, done.text
    shown = made(await scene.api.get(f"/models/{alias}"))
    assert shown["usage_count"] == 2
    assert shown["usage_stats"] == {"total_calls": 2, "total_cost_usd": 0.019, "avg_tokens_per_call": 450.0}
    [listed] = [one for one in (await scene.api.get("/models")).json() if one["alias"] == alias]
    assert listed["usage_count"] == 2


async def test_a_disabled_alias_is_refused_within_a_second(scene: Scene):
    team = await scene.team()
    alias = team.models[0]
    job = await team.job()
    assert (await team.submit(job["job_id"], model=alias)).status_code == 202
    made(await scene.api.put(f"/models/{quote(alias)}", {"active": False}))

    async def is_refused() -> bool:
        answer = await team.submit((await team.job())["job_id"], model=alias)
        if answer.status_code == 202:
            return False
        no_access = f"Team '{team.id}' does not have access to model alias '{alias}'"
        assert refusal(answer) == (403, no_access)
        return True

    await until(is_refused, "the alias is refused")


async def test_an_unpriced_call_is_flagged_and_costs_nothing(scene: Scene):
    unpriced = {"litellm_model": "openai/no-such-model", "pricing_input": None, "pricing_output": None}
    strict = await scene.team(alias=unpriced)
    job = await strict.job()
    refused = await strict.submit(job["job_id"])
    told = [{"loc": ["body", "model"], "msg": "model has no price", "type": "value_error.unpriced"}]
    assert refusal(refused) == (422, told)

    team = await scene.team(alias={**unpriced, "allow_unpriced": True})
    job = await team.job()
    done = await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO})
    assert done.status_code == 200, done.text
    [attempt] = await scene.attempts(done.json()["call_id"])
    assert (attempt.price_source, attempt.client_cost_nanousd, attempt.provider_cost_nanousd) == ("unpriced", 0, 0)
