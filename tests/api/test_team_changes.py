"""Changing a team: what is left out stays, null clears, the ledger says what moved."""

import asyncio
from typing import Any

import pytest

from tests.api.admin import Api, made, refusal, wrong_place
from tests.scene import HELLO, Scene

WORDS = "job_based, consumption_usd, consumption_tokens"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_what_is_sent_changes_and_the_rest_stays(api: Api, method: str):
    group = (await api.group())["group_name"]
    team = await api.team(rpm_limit=7, metadata={"a": 1}, weight=2)
    path = f"/teams/{team['team_id']}"
    sent = {
        "team_alias": "New name",
        "model_groups": [group],
        "budget_mode": "consumption_tokens",
        "limit_mode": "soft",
        "tokens_per_credit": 500,
        "tpm_limit": 9,
        "store_payloads": False,
        "credit_limit": 50,
        "max_budget_usd": 3,
        "budget_duration": "2h",
        "status": "suspended",
    }
    changed = made(await api.send(method, path, sent))

    assert changed.pop("message") == "Team updated successfully"
    assert changed == made(await api.get(path))
    for name, value in {**sent, "rpm_limit": 7, "metadata": {"a": 1}, "weight": 2, "team_id": team["team_id"]}.items():
        assert changed[name] == value, name
    assert changed["updated_at"] > team["updated_at"]


async def test_null_clears_what_may_be_empty_and_nothing_else(api: Api):
    full = {"team_alias": "A", "rpm_limit": 1, "max_parallel_calls": 2, "credit_limit": 3, "default_model": "m"}
    budget = {"max_budget_usd": 1, "budget_duration": "30d"}
    team = await api.team(**full, **budget, weight=5, metadata={"k": "v"})
    path = f"/teams/{team['team_id']}"
    cleared = made(await api.put(path, dict.fromkeys([*full, *budget, "weight", "metadata", "status"])))

    assert all(cleared[name] is None for name in [*full, *budget])
    assert (cleared["weight"], cleared["metadata"], cleared["status"]) == (5, {"k": "v"}, "active")


async def test_ids_and_key_cannot_be_changed(api: Api):
    team = await api.team()
    other = (await api.organization())["organization_id"]
    sent = {"team_id": "other", "organization_id": other, "virtual_key": "sk-another-key-of-mine"}
    changed = made(await api.put(f"/teams/{team['team_id']}", sent))
    assert {name: changed[name] for name in ("team_id", "organization_id")} == {
        name: team[name] for name in ("team_id", "organization_id")
    }
    made(await api.get("/teams/verify", key=team["virtual_key"]))


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"weight": 101}, "weight"),
        ({"status": "deleted"}, "status"),
        ({"credits_allocated": -1}, "credits_allocated"),
        ({"credits_used": 1.5}, "credits_used"),
        ({"limit_mode": "zzz"}, "limit_mode"),
        ({"budget_duration": "30d"}, "budget_duration"),
        ({"budget_duration": "0d"}, "budget_duration"),
    ],
)
async def test_wrong_values_are_refused_at_their_field(api: Api, sent: dict[str, Any], place: str):
    team = await api.team()
    assert wrong_place(await api.put(f"/teams/{team['team_id']}", sent)) == ["body", place]


async def test_a_refused_change_changes_nothing(api: Api):
    team = await api.team(team_alias="Before", credits_allocated=5)
    path = f"/teams/{team['team_id']}"
    for sent, refused in (
        ({"budget_mode": "zzz"}, (400, f"Invalid budget_mode: zzz. Must be one of: {WORDS}")),
        ({"access_groups": ["nothing"]}, (404, "Model access group 'nothing' not found")),
    ):
        answer = await api.put(path, {**sent, "team_alias": "After", "credits_allocated": 9})
        assert refusal(answer) == refused
    after = made(await api.get(path))
    assert (after["team_alias"], after["credits_allocated"]) == ("Before", 5)


async def test_credits_set_by_hand_are_adjustments(api: Api):
    team = await api.team(credits_allocated=100)
    path = f"/teams/{team['team_id']}"
    changed = made(await api.put(path, {"credits_allocated": 150, "credits_used": 30}))
    assert (changed["credits_allocated"], changed["credits_used"], changed["credits_remaining"]) == (150, 30, 120)
    made(await api.put(path, {"credits_allocated": 150, "credits_used": 30}))

    entries = made(await api.get(f"{path}/credits/transactions"))["transactions"]
    adjustments = [entry["credits_amount"] for entry in entries if entry["transaction_type"] == "adjustment"]
    assert sorted(adjustments) == [-30, 50]
    assert sum(entry["credits_amount"] for entry in entries) == 120


async def test_a_hard_account_is_never_set_below_zero(api: Api):
    team = await api.team(credits_allocated=10)
    path = f"/teams/{team['team_id']}"
    assert (await api.put(path, {"credits_used": 11})).status_code == 400
    soft = made(await api.put(path, {"credits_used": 11, "limit_mode": "soft"}))
    assert (soft["credits_remaining"], soft["credits"]["overage"]) == (-1, 1)
    assert (await api.put(path, {"limit_mode": "hard"})).status_code == 400
    hard = made(await api.put(path, {"limit_mode": "hard", "credits_allocated": 11}))
    assert (hard["limit_mode"], hard["credits_remaining"]) == ("hard", 0)


async def test_changes_at_once_are_all_on_the_ledger(api: Api):
    team = await api.team(credits_allocated=10)
    path = f"/teams/{team['team_id']}"
    answers = await asyncio.gather(*(api.put(path, {"credits_allocated": n}) for n in (20, 30, 40, 50)))
    assert {answer.status_code for answer in answers} == {200}
    found = made(await api.get(path))
    entries = made(await api.get(f"{path}/credits/transactions"))["transactions"]
    assert sum(entry["credits_amount"] for entry in entries) == found["credits_remaining"]


async def test_a_budget_changes_and_keeps_what_it_spent(scene: Scene):
    scene.live = False
    team = await scene.team(max_budget_usd=1)
    job = await team.job(calls=[{"messages": HELLO}])
    await scene.work_on(job["calls"][0]["call_id"])
    spent = made(await scene.api.get(f"/teams/{team.id}"))["budget_spent_usd"]
    assert spent > 0
    changed = made(await scene.api.put(f"/teams/{team.id}", {"max_budget_usd": 2}))
    assert (changed["max_budget_usd"], changed["budget_spent_usd"]) == (2.0, spent)
    removed = made(await scene.api.put(f"/teams/{team.id}", {"max_budget_usd": None}))
    assert (removed["max_budget_usd"], removed["budget_spent_usd"]) == (None, None)


@pytest.mark.parametrize("name", ["nobody", "a%00b"])
async def test_an_unknown_team_is_404(api: Api, name: str):
    for method, path, body in (
        ("PUT", "", {"weight": 2}),
        ("PATCH", "/markup", {}),
        ("PUT", "/access-groups", []),
        ("PUT", "/model-groups", {"model_groups": []}),
    ):
        answer = await api.send(method, f"/teams/{name}{path}", body)
        assert answer.status_code == 404, path


async def test_markup_is_set_with_its_rates(api: Api):
    team = await api.team()
    name = team["team_id"]
    sent = {"cost_markup_percentage": 12.5, "budget_mode": "consumption_usd", "credits_per_dollar": 20}
    assert made(await api.send("PATCH", f"/teams/{name}/markup", sent)) == {
        "team_id": name,
        "cost_markup_percentage": 12.5,
        "budget_mode": "consumption_usd",
        "credits_per_dollar": 20.0,
        "message": "Markup updated successfully",
    }
    made(await api.send("PATCH", f"/teams/{name}/markup", {"budget_mode": "unlimited"}))
    found = made(await api.get(f"/teams/{name}"))
    assert (found["budget_mode"], found["limit_mode"]) == ("consumption_usd", "unlimited")
    refused = await api.send("PATCH", f"/teams/{name}/markup", {"budget_mode": "zzz"})
    assert refusal(refused) == (400, f"Invalid budget_mode: zzz. Must be one of: {WORDS}")
    for wrong in ({"cost_markup_percentage": 1001}, {"cost_markup_percentage": -1}, {"credits_per_dollar": 0}):
        assert wrong_place(await api.send("PATCH", f"/teams/{name}/markup", wrong)) == ["body", *wrong]


async def test_groups_are_given_as_a_list_or_under_either_name(api: Api):
    alias = (await api.alias())["alias"]
    first = (await api.group(model_aliases=[alias]))["group_name"]
    second = (await api.group())["group_name"]
    name = (await api.team())["team_id"]
    answer = {
        "team_id": name,
        "access_groups": [second, first],
        "allowed_model_aliases": [alias],
        "message": "Model access groups assigned successfully",
    }
    for body in ([second, first, second], {"access_groups": [second, first]}, {"model_groups": [second, first]}):
        assert made(await api.put(f"/teams/{name}/access-groups", body)) == answer
    assert made(await api.put(f"/teams/{name}/model-groups", {"model_groups": [first]})) == {
        "team_id": name,
        "model_groups": [first],
        "message": "Model groups assigned successfully",
    }
    missing = await api.put(f"/teams/{name}/access-groups", [second, "nothing"])
    assert refusal(missing) == (404, "Model access group 'nothing' not found")
    assert made(await api.get(f"/teams/{name}"))["access_groups"] == [first]
    assert made(await api.put(f"/teams/{name}/model-groups", []))["model_groups"] == []


async def test_groups_must_be_a_list_of_names(api: Api):
    path = f"/teams/{(await api.team())['team_id']}/access-groups"
    assert wrong_place(await api.put(path, {})) == ["body", "access_groups"]
    assert wrong_place(await api.put(path)) == ["body"]
    assert wrong_place(await api.put(path, ["a b"])) == ["body", "access_groups", 0]
    assert wrong_place(await api.put(path, "gpt")) == ["body"]
