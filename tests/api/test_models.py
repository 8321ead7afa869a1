"""Aliases and access groups: the provider's side is for admins, the key for nobody."""

import asyncio

import pytest
from sqlalchemy import select

from shared import tables
from shared.runtime import Runtime
from tests.api.admin import ALIASES, Api, made, refusal, unique, wrong_place

SECRET = "sk-provider-very-secret"


async def test_alias_object_holds_every_field(api: Api):
    group = (await api.group())["group_name"]
    other = (await api.alias())["alias"]
    alias = await api.alias(
        litellm_model="openai/gpt-4",
        access_groups=[group],
        fallbacks=[other],
        pricing_input=30,
        pricing_output=60.5,
        max_output_tokens=100,
        api_base="http://127.0.0.1:9999/v1",
        api_key=SECRET,
    )
    team = await api.team(access_groups=[group])
    name = alias["alias"]
    assert alias == {
        "alias": name,
        "model_alias": name,
        "display_name": name,
        "litellm_model": "openai/gpt-4",
        "provider": "openai",
        "actual_model": "gpt-4",
        "litellm_model_id": None,
        "description": None,
        "active": True,
        "status": "active",
        "access_groups": [group],
        "fallbacks": [other],
        "pricing_input": 30.0,
        "pricing_output": 60.5,
        "pricing_cached_input": 30.0,
        "price_source": "alias",
        "allow_unpriced": False,
        "on_unknown": "retry",
        "has_api_key": True,
        "api_base": "http://127.0.0.1:9999/v1",
        "teams_with_access": 0,
        "teams_using": [],
        "usage_count": 0,
        "created_at": alias["created_at"],
        "updated_at": alias["updated_at"],
    }
    found = made(await api.get(f"/model-aliases/{name}"))
    assert found == {
        **alias,
        "teams_with_access": 1,
        "teams_using": [team["team_id"]],
        "usage_stats": {"total_calls": 0, "total_cost_usd": 0.0, "avg_tokens_per_call": 0.0},
    }


async def test_provider_key_is_sealed_and_never_answered(api: Api, runtime: Runtime):
    body = {"alias": unique("alias"), "litellm_model": "openai/gpt-4", "api_key": SECRET}
    answers = [await api.post("/model-aliases/create", body)]
    answers.append(await api.put(f"/model-aliases/{body['alias']}", {"description": "new"}))
    answers.append(await api.get(f"/model-aliases/{body['alias']}"))
    for answer in answers:
        assert made(answer)["has_api_key"] is True
        assert SECRET not in answer.text

    async with runtime.db.statement() as tx:
        wanted = select(tables.model_aliases.c.api_key_sealed).where(tables.model_aliases.c.alias == body["alias"])
        sealed = await tx.scalar(wanted)
    assert runtime.sealer.open(sealed, purpose=f"model_aliases.api_key:{body['alias']}") == SECRET

    cleared = made(await api.put(f"/model-aliases/{body['alias']}", {"api_key": None}))
    assert cleared["has_api_key"] is False


@pytest.mark.parametrize("path", ["/model-aliases/create", "/models/create", "/models/aliases/create"])
async def test_names_with_a_slash_work_by_every_path(api: Api, path: str):
    name = f"{unique('vendor')}/gpt-4/turbo"
    body = {"model_alias": name, "provider": "together_ai", "actual_model": "meta-llama/Llama-3-70b"}
    assert made(await api.post(path, body))["litellm_model"] == "together_ai/meta-llama/Llama-3-70b"
    for prefix in ALIASES:
        assert made(await api.get(f"{prefix}/{name}"))["actual_model"] == "meta-llama/Llama-3-70b"
        assert made(await api.put(f"{prefix}/{name}", {"description": prefix}))["description"] == prefix


@pytest.mark.parametrize(
    ("given", "litellm_model"),
    [
        ({"litellm_model": "anthropic/claude-x"}, "anthropic/claude-x"),
        ({"litellm_model": "gpt-4", "provider": "openai"}, "openai/gpt-4"),
        ({"litellm_model": "openai/gpt-4", "provider": "openai", "actual_model": "gpt-4"}, "openai/gpt-4"),
        ({"litellm_model": "org/own-model", "provider": "hosted_vllm"}, "hosted_vllm/org/own-model"),
        ({"provider": "openai", "actual_model": "openai/gpt-oss-20b"}, "openai/openai/gpt-oss-20b"),
    ],
)
async def test_provider_and_model_make_the_name(api: Api, given: dict[str, str], litellm_model: str):
    alias = made(await api.post("/model-aliases/create", {"alias": unique("alias"), **given}))
    assert alias["litellm_model"] == litellm_model == f"{alias['provider']}/{alias['actual_model']}"


@pytest.mark.parametrize("name", ["gpt-4", "openai", "openai/"])
async def test_a_bare_model_name_needs_its_provider(api: Api, name: str):
    answer = await api.post("/model-aliases/create", {"alias": unique("alias"), "litellm_model": name})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "litellm_model"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"litellm_model": "zzz/gpt-4"}, "zzz"),
        ({"provider": "zzz", "actual_model": "gpt-4"}, "zzz"),
    ],
)
async def test_unknown_providers_are_refused(api: Api, given: dict[str, str], named: str):
    status, detail = refusal(await api.post("/model-aliases/create", {"alias": unique("alias"), **given}))
    assert status == 400
    assert detail.startswith(f"Invalid provider: {named}. Must be one of: openai, anthropic, ")


@pytest.mark.parametrize(
    ("given", "missing"),
    [({}, "litellm_model"), ({"provider": "openai"}, "actual_model"), ({"actual_model": "gpt-4"}, "provider")],
)
async def test_half_a_model_is_refused(api: Api, given: dict[str, str], missing: str):
    assert wrong_place(await api.post("/model-aliases/create", {"alias": unique("alias"), **given})) == [
        "body",
        missing,
    ]


async def test_price_comes_from_the_alias_then_the_bundled_map_then_nowhere(api: Api):
    own = await api.alias(litellm_model="openai/gpt-4o", pricing_input=0, pricing_output=0)
    bundled = await api.alias(litellm_model="openai/gpt-4o")
    unpriced = await api.alias(litellm_model="openai/no-such-model", allow_unpriced=True)

    assert [alias["price_source"] for alias in (own, bundled, unpriced)] == ["alias", "bundled", "unpriced"]
    assert own["pricing_input"] == 0.0
    assert bundled["pricing_output"] > bundled["pricing_input"] > bundled["pricing_cached_input"] > 0
    assert (unpriced["pricing_input"], unpriced["pricing_output"]) == (None, None)


@pytest.mark.parametrize(
    ("api_base", "allowed"),
    [
        ("http://127.0.0.1:4010/v1", True),
        ("https://provider.invalid/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://169.254.169.254/latest", False),
        ("https://user:pass@127.0.0.1/", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
async def test_api_base_follows_the_rules_of_outgoing_requests(api: Api, api_base: str, allowed: bool):
    body = {"alias": unique("alias"), "litellm_model": "openai/gpt-4", "api_base": api_base}
    answer = await api.post("/model-aliases/create", body)
    if allowed:
        assert made(answer)["api_base"] == api_base
        return
    status, detail = refusal(answer)
    assert status == 400
    assert detail.startswith("api_base is not allowed: ")
    alias = await api.alias()
    assert refusal(await api.put(f"/model-aliases/{alias['alias']}", {"api_base": api_base})) == (status, detail)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alias", "create"),
        ("alias", "a//b"),
        ("alias", "a/../b"),
        ("alias", "a b"),
        ("alias", ""),
        ("pricing_input", -1),
        ("pricing_input", 10**7),
        ("on_unknown", "zzz"),
        ("max_output_tokens", 0),
        ("credential_name", ""),
        ("api_key", ""),
    ],
)
async def test_wrong_values_are_refused_at_their_field(api: Api, field: str, value: object):
    body = {"alias": unique("alias"), "litellm_model": "openai/gpt-4", field: value}
    assert wrong_place(await api.post("/model-aliases/create", body)) == ["body", field]


async def test_of_two_creates_at_once_one_wins(api: Api):
    alias = {"alias": unique("alias"), "litellm_model": "openai/gpt-4"}
    group = {"group_name": unique("group")}
    for path, body, text in (
        ("/model-aliases/create", alias, f"Model alias '{alias['alias']}' already exists"),
        ("/model-access-groups/create", group, f"Model access group '{group['group_name']}' already exists"),
    ):
        answers = await asyncio.gather(*(api.post(path, body) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
        assert refusal(next(answer for answer in answers if answer.status_code == 400)) == (400, text)


async def test_alias_for_an_unknown_group_is_not_made(api: Api):
    body = {"alias": unique("alias"), "litellm_model": "openai/gpt-4", "access_groups": ["nothing"]}
    answer = await api.post("/model-aliases/create", body)
    assert refusal(answer) == (404, "Model access group 'nothing' not found")
    unknown = await api.get(f"/model-aliases/{body['alias']}")
    assert refusal(unknown) == (404, f"Model alias '{body['alias']}' not found")


async def test_change_sets_the_fields_given_and_no_others(api: Api):
    first, second = [(await api.group())["group_name"] for _ in range(2)]
    alias = await api.alias(access_groups=[first], pricing_input=1, pricing_output=2, description="old")
    path = f"/model-aliases/{alias['alias']}"

    moved = made(await api.put(path, {"api_base": "http://127.0.0.1:4010/v1"}))
    assert {**moved, "api_base": None, "updated_at": None} == {
        **alias,
        "updated_at": None,
        "usage_stats": moved["usage_stats"],
    }
    changes = {
        "access_groups": [second],
        "pricing_input": 3,
        "display_name": None,
        "description": None,
        "active": False,
    }
    before = made(await api.get(f"/model-access-groups/{first}"))
    changed = made(await api.put(path, changes))
    assert (changed["access_groups"], changed["pricing_input"], changed["pricing_output"]) == ([second], 3.0, 2.0)
    assert (changed["display_name"], changed["description"]) == (alias["alias"], None)
    assert (changed["active"], changed["status"]) == (False, "inactive")
    left = made(await api.get(f"/model-access-groups/{first}"))
    assert left["model_aliases"] == []
    assert left["updated_at"] > before["updated_at"]
    renamed = made(await api.put(path, {"litellm_model": "anthropic/claude-x", "alias": alias["alias"]}))
    assert (renamed["provider"], renamed["actual_model"]) == ("anthropic", "claude-x")
    assert wrong_place(await api.put(path, {"alias": "another"})) == ["body", "alias"]


@pytest.mark.parametrize("name", ["nobody", "a%00b", "a%20b", "a/b"])
async def test_unknown_or_malformed_names_are_404(api: Api, name: str):
    assert (await api.get(f"/model-aliases/{name}")).status_code == 404
    assert (await api.put(f"/model-aliases/{name}", {"active": False})).status_code == 404
    assert (await api.get(f"/model-access-groups/{name}")).status_code == 404
    assert (await api.put(f"/model-access-groups/{name}/models", {"model_aliases": []})).status_code == 404


async def test_group_keeps_its_order(api: Api):
    a, b, c = [(await api.alias())["alias"] for _ in range(3)]
    group = await api.group(display_name="Chat", model_aliases=[b, a, b])
    path = f"/model-access-groups/{group['group_name']}"
    members = [(member["alias"], member["priority"]) for member in group["model_aliases"]]
    assert members == [(b, 0), (a, 1)]

    changed = made(await api.put(f"{path}/models", {"model_aliases": [c, b]}))
    assert [member["alias"] for member in changed["model_aliases"]] == [c, b]
    last = (await api.alias(access_groups=[group["group_name"]]))["alias"]
    assert [member["alias"] for member in made(await api.get(path))["model_aliases"]] == [c, b, last]
    refused = await api.put(f"{path}/models", {"model_aliases": [a, "nothing"]})
    assert refusal(refused) == (404, "Model alias 'nothing' not found")
    assert [member["alias"] for member in made(await api.get(path))["model_aliases"]] == [c, b, last]


async def test_group_object_for_admins_and_for_a_team_that_holds_it(api: Api):
    alias = await api.alias(litellm_model="openai/gpt-4", description="fast")
    group = await api.group(model_aliases=[alias["alias"]])
    name = group["group_name"]
    team, other = await api.team(access_groups=[name]), await api.team()

    shown = {
        "model_alias": alias["alias"],
        "alias": alias["alias"],
        "display_name": alias["alias"],
        "description": "fast",
        "priority": 0,
        "active": True,
    }
    head = {
        "group_name": name,
        "display_name": name,
        "description": None,
        "status": "active",
        "created_at": group["created_at"],
        "updated_at": group["updated_at"],
    }
    provider_side = {"provider": "openai", "actual_model": "gpt-4", "litellm_model": "openai/gpt-4"}
    assert made(await api.get(f"/model-access-groups/{name}")) == {
        **head,
        "model_aliases": [{**shown, **provider_side}],
        "teams_using": [team["team_id"]],
        "teams_with_access": 1,
    }
    own = made(await api.get(f"/model-access-groups/{name}", key=team["virtual_key"]))
    assert own == {**head, "model_aliases": [shown]}
    closed = await api.get(f"/model-access-groups/{name}", key=other["virtual_key"])
    assert refusal(closed) == (403, f"Team '{other['team_id']}' does not have access to model group '{name}'")


async def test_a_team_sees_its_aliases_at_its_prices(api: Api):
    group = (await api.group())["group_name"]
    foreign = (await api.group())["group_name"]
    alias = await api.alias(access_groups=[group, foreign], pricing_input=10, pricing_output=20)
    team = await api.team(access_groups=[group], cost_markup_percentage=50)
    other = await api.team()

    assert made(await api.get(f"/model-aliases/{alias['alias']}", key=team["virtual_key"])) == {
        "alias": alias["alias"],
        "model_alias": alias["alias"],
        "display_name": alias["alias"],
        "description": None,
        "active": True,
        "pricing_input": 15.0,
        "pricing_output": 30.0,
        "pricing_cached_input": 15.0,
        "access_groups": [group],
    }
    unknown = 404, f"Model alias '{alias['alias']}' not found"
    assert refusal(await api.get(f"/model-aliases/{alias['alias']}", key=other["virtual_key"])) == unknown
    made(await api.put(f"/model-access-groups/{group}", {"status": "inactive"}))
    assert refusal(await api.get(f"/model-aliases/{alias['alias']}", key=team["virtual_key"])) == unknown
