"""Budget mode, limit mode, rates and thresholds: what is taken, refused, and from when it counts."""

from dataclasses import replace
from typing import Any

import pytest

from tests import scene as scenes
from tests.api.admin import Api, made, refusal, wrong_place
from tests.scene import HELLO, Scene

DEFAULTS = {"tokens_per_credit": 10_000, "credits_per_dollar": 10.0}
MODES = "budget_mode must be one of: job_based, consumption_usd, consumption_tokens"


async def changed(api: Api, team_id: str, **fields: Any) -> dict[str, Any]:
    return made(await api.send("PATCH", f"/credits/teams/{team_id}/budget-mode", fields))


async def refused(api: Api, team_id: str, **fields: Any) -> tuple[int, Any]:
    return refusal(await api.send("PATCH", f"/credits/teams/{team_id}/budget-mode", fields))


async def test_rates_are_read_changed_and_reset(api: Api):
    name = (await api.team())["team_id"]
    path = f"/credits/teams/{name}/conversion-rates"
    defaults = {"tokens_per_credit": True, "credits_per_dollar": True}
    start = made(await api.get(path))
    assert start == {"team_id": name, **DEFAULTS, "budget_mode": "job_based", "using_defaults": defaults}

    one = made(await api.send("PATCH", path, {"credits_per_dollar": 0.5}))
    assert one.pop("message") == "Conversion rates updated successfully"
    assert one == {**start, "credits_per_dollar": 0.5, "using_defaults": {**defaults, "credits_per_dollar": False}}
    both = made(await api.send("PATCH", path, {"tokens_per_credit": 7.0, "credits_per_dollar": None}))
    assert (both["tokens_per_credit"], both["credits_per_dollar"]) == (7, 10.0)
    assert both["using_defaults"] == {"tokens_per_credit": False, "credits_per_dollar": True}
    assert made(await api.send("PATCH", path, {"tokens_per_credit": None}))["using_defaults"] == defaults
    assert made(await api.get(path)) == start


@pytest.mark.parametrize("route", ["conversion-rates", "budget-mode"])
@pytest.mark.parametrize(("fields", "text"), [
    ({"tokens_per_credit": 0}, "tokens_per_credit must be a positive integer"),
    ({"tokens_per_credit": -5}, "tokens_per_credit must be a positive integer"),
    ({"tokens_per_credit": 1.5}, "tokens_per_credit must be a positive integer"),
    ({"credits_per_dollar": 0}, "credits_per_dollar must be a positive number"),
    ({"credits_per_dollar": -0.1}, "credits_per_dollar must be a positive number"),
])  # fmt: skip
async def test_rates_are_positive(api: Api, route: str, fields: dict[str, Any], text: str):
    name = (await api.team())["team_id"]
    body = {"budget_mode": "consumption_usd", **fields}
    assert refusal(await api.send("PATCH", f"/credits/teams/{name}/{route}", body)) == (400, text)
    shown = made(await api.get(f"/credits/teams/{name}/conversion-rates"))
    assert {key: shown[key] for key in DEFAULTS} == DEFAULTS
    assert shown["budget_mode"] == "job_based"


async def test_rates_of_other_types_are_invalid(api: Api):
    name = (await api.team())["team_id"]
    for field, value in (("tokens_per_credit", "many"), ("tokens_per_credit", 1e300), ("credits_per_dollar", [1])):
        answer = await api.send("PATCH", f"/credits/teams/{name}/conversion-rates", {field: value})
        assert wrong_place(answer)[:2] == ["body", field]


async def test_terms_are_for_admins_and_existing_teams(api: Api):
    team = await api.team()
    own = f"/credits/teams/{team['team_id']}"
    for method, route in (("GET", "conversion-rates"), ("PATCH", "conversion-rates"), ("PATCH", "budget-mode")):
        body = None if method == "GET" else {"budget_mode": "job_based"}
        unknown = await api.send(method, f"/credits/teams/nobody/{route}", body)
        assert refusal(unknown) == (404, "Team 'nobody' not found")
        closed = await api.send(method, f"{own}/{route}", body, key=team["virtual_key"])
        assert refusal(closed) == (403, "Admin access required")


async def test_the_mode_is_set_with_rates_limits_and_alerts(api: Api):
    name = (await api.team(credits_allocated=10))["team_id"]
    answer = await changed(
        api, name, budget_mode="consumption_usd", limit_mode="soft", credits_per_dollar=20, tokens_per_credit=500,
        credit_limit=40, alert_at_percentage=[95, 50.5, 95],
    )  # fmt: skip
    assert answer == {
        "team_id": name,
        "budget_mode": "consumption_usd",
        "limit_mode": "soft",
        "credits_per_dollar": 20.0,
        "tokens_per_credit": 500,
        "message": "Budget mode updated successfully",
    }
    team = made(await api.get(f"/teams/{name}"))
    assert (team["credit_limit"], team["alert_at_percentage"]) == (40, [50.5, 95])
    assert team["credits"]["limit_mode"] == "soft"

    only_mode = await changed(api, name, budget_mode="consumption_tokens")
    assert (only_mode["limit_mode"], only_mode["credits_per_dollar"]) == ("soft", 20.0)
    await changed(api, name, budget_mode="job_based", credit_limit=None, alert_at_percentage=70)
    team = made(await api.get(f"/teams/{name}"))
    assert (team["credit_limit"], team["alert_at_percentage"]) == (None, [70])
    await changed(api, name, budget_mode="job_based", alert_at_percentage=None, credits_per_dollar=None)
    team = made(await api.get(f"/teams/{name}"))
    assert (team["alert_at_percentage"], team["credits_per_dollar"]) == ([80, 90, 100], 10.0)


@pytest.mark.parametrize("word", ["soft", "unlimited", "hard"])
async def test_a_limit_word_as_budget_mode_sets_the_limit_mode(api: Api, word: str):
    name = (await api.team())["team_id"]
    await changed(api, name, budget_mode="consumption_tokens", limit_mode="soft")
    answer = await changed(api, name, budget_mode=word)
    assert (answer["budget_mode"], answer["limit_mode"]) == ("consumption_tokens", word)


async def test_wrong_modes_are_refused(api: Api):
    name = (await api.team())["team_id"]
    assert await refused(api, name, budget_mode="per_moon") == (400, MODES)
    path = f"/credits/teams/{name}/budget-mode"
    for field, value in (
        ("limit_mode", "firm"),
        ("credit_limit", -1),
        ("alert_at_percentage", 0),
        ("alert_at_percentage", 1000.5),
        ("alert_at_percentage", [80, -1]),
        ("alert_at_percentage", [1] * 21),
    ):
        answer = await api.send("PATCH", path, {"budget_mode": "job_based", field: value})
        assert wrong_place(answer)[:2] == ["body", field], value
    assert wrong_place(await api.send("PATCH", path, {"limit_mode": "soft"})) == ["body", "budget_mode"]


async def test_an_overdrawn_account_does_not_become_hard(scene: Scene):
    api, team = scene.api, await scene.team(credits=1)
    await changed(api, team.id, budget_mode="job_based", limit_mode="unlimited")
    for _ in range(2):
        await team.call((await team.job())["job_id"])
    text = "limit_mode 'hard' does not let credits_available fall below zero; this would make it -1"
    refusal_ = await refused(api, team.id, budget_mode="consumption_usd", limit_mode="hard", tokens_per_credit=3)
    assert refusal_ == (400, text)
    shown = made(await api.get(f"/credits/teams/{team.id}/balance"))
    assert (shown["limit_mode"], shown["budget_mode"]) == ("unlimited", "job_based")
    assert (shown["credits_available"], shown["tokens_per_credit"]) == (-1, 10_000)

    made(await api.post("/credits/add", {"team_id": team.id, "amount": 1}))
    assert (await changed(api, team.id, budget_mode="hard"))["limit_mode"] == "hard"


async def test_a_change_applies_to_jobs_whose_first_call_comes_after_it(scene: Scene):
    api, team = scene.api, await scene.team(credits=10_000)
    scene.provider.held.clear()
    old = (await team.job())["job_id"]
    await team.call(old)
    await changed(api, team.id, budget_mode="consumption_tokens", tokens_per_credit=100)

    # Another process, which has not looked at the team's key in the last second.
    async with scenes.opened(scene.rt) as other:
        other.live = True
        body = {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}]}
        new = made(await replace(team, scene=other).post("/jobs/create", body, Prefer="wait=10"))["job_id"]
    scene.provider.held.set()
    made(await team.post(f"/jobs/{old}/complete", {"status": "completed"}, Prefer="wait=10"))

    charged = {}
    for job_id in (old, new):
        [entry] = made(await api.get(f"/credits/teams/{team.id}/transactions?job_id={job_id}"))["transactions"]
        charged[job_id] = entry["credits_amount"]
    assert charged == {old: -1, new: -5}  # 450 tokens at 100 for a credit


async def checked(api: Api, team_id: str, needed: int = 1, key: str | None = None) -> dict[str, Any]:
    return made(await api.post(f"/credits/teams/{team_id}/check?credits_needed={needed}", key=key))


async def test_a_check_says_what_the_gate_would(scene: Scene):
    api, team = scene.api, await scene.team(credits=2)
    await team.call((await team.job())["job_id"])
    assert made(await team.post(f"/credits/teams/{team.id}/check")) == {
        "team_id": team.id,
        "has_credits": True,
        "credits_remaining": 2,
        "credits_available": 1,
        "credits_needed": 1,
    }
    assert await checked(api, team.id, 2, team.key) == {
        "team_id": team.id,
        "has_credits": False,
        "error": "Insufficient credits. Team has 1 credits remaining, but 2 required. Allocated: 2, Used: 0, Held: 1",
        "credits_needed": 2,
    }
    await changed(api, team.id, budget_mode="soft", credit_limit=5)
    assert [(await checked(api, team.id, needed))["has_credits"] for needed in (4, 5)] == [True, False]
    await changed(api, team.id, budget_mode="unlimited")
    assert (await checked(api, team.id, 10**6))["has_credits"] is True


async def test_a_check_of_an_empty_account_reads_as_documented(api: Api):
    name = (await api.team())["team_id"]
    assert (await checked(api, name))["error"] == (
        "Insufficient credits. Team has 0 credits remaining, but 1 required. Allocated: 0, Used: 0"
    )


async def test_a_check_is_for_the_team_and_admins(api: Api):
    team, other = await api.team(), await api.team()
    closed = await api.post(f"/credits/teams/{other['team_id']}/check", key=team["virtual_key"])
    assert refusal(closed) == (403, "Cannot check credits for a different team")
    nobody = await api.post("/credits/teams/nobody/check")
    assert refusal(nobody) == (404, "No credit account found for team 'nobody'")
    for needed in ("0", "-1", "x", "1.5"):
        answer = await api.post(f"/credits/teams/{team['team_id']}/check?credits_needed={needed}")
        assert wrong_place(answer) == ["query", "credits_needed"]
