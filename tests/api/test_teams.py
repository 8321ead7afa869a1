"""Teams: all or nothing at creation, secrets shown once, lists."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from shared import key_secrets, money, tables
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, refusal, unique, wrong_place
from tests.scene import COST_NANOUSD, HELLO, Scene

SHOWN_ONCE = ("callback_secret", "message")


async def test_team_object_holds_every_field(api: Api):
    alias = await api.alias()
    group = await api.group(model_aliases=[alias["alias"]])
    team = await api.team(
        team_alias="Acme production",
        access_groups=[group["group_name"]],
        credits_allocated=1000,
        default_model=alias["alias"],
        rpm_limit=60,
        tpm_limit=60000,
        metadata={"crm": 7},
        weight=3,
        charge_failed_calls=True,
        cost_markup_percentage=12.5,
    )
    found = made(await api.get(f"/teams/{team['team_id']}"))

    credit = {
        "credits_allocated": 1000,
        "credits_used": 0,
        "credits_remaining": 1000,
        "credits_held": 0,
        "credits_available": 1000,
    }
    rates = {"credits_per_dollar": 10.0, "tokens_per_credit": 10000, "cost_markup_percentage": 12.5}
    assert found == {
        "team_id": team["team_id"],
        "organization_id": team["organization_id"],
        "team_alias": "Acme production",
        "status": "active",
        "paused_until": None,
        "access_groups": [group["group_name"]],
        "model_groups": [group["group_name"]],
        "allowed_model_aliases": [alias["alias"]],
        "allowed_models": [alias["alias"]],
        "default_model": alias["alias"],
        "budget_mode": "job_based",
        "limit_mode": "hard",
        "credit_limit": None,
        "alert_at_percentage": [80, 90, 100],
        **rates,
        "charge_failed_calls": True,
        "rpm_limit": 60,
        "tpm_limit": 60000,
        "max_parallel_calls": None,
        "max_queued_calls": None,
        "weight": 3,
        "store_payloads": True,
        "max_budget_usd": None,
        "budget_duration": None,
        "budget_spent_usd": None,
        **credit,
        "credits": {
            "team_id": team["team_id"],
            "organization_id": team["organization_id"],
            **credit,
            "overage": 0,
            "percentage_used": 0.0,
            "status": "active",
            "credit_limit": None,
            "auto_refill": False,
            "refill_amount": None,
            "refill_period": None,
            "last_refill_at": None,
            "next_refill_at": None,
            "budget_mode": "job_based",
            "limit_mode": "hard",
            **rates,
            "created_at": found["credits"]["created_at"],
            "updated_at": found["credits"]["updated_at"],
        },
        "usage_summary": {"total_jobs": 0, "total_cost_usd": 0.0},
        "virtual_key": key_secrets.hint(team["virtual_key"]),
        "metadata": {"crm": 7},
        "created_at": found["created_at"],
        "updated_at": found["updated_at"],
    }
    assert team == {**found, **{name: team[name] for name in (*SHOWN_ONCE, "virtual_key")}}
    assert team["message"] == "Team created successfully"


async def test_a_team_reads_itself_without_its_markup_and_no_secret(api: Api):
    team = await api.team(cost_markup_percentage=20)
    answer = await api.get(f"/teams/{team['team_id']}", key=team["virtual_key"])

    assert made(answer)["team_id"] == team["team_id"]
    for secret in ("cost_markup_percentage", team["virtual_key"], team["callback_secret"]):
        assert secret not in answer.text


async def test_secrets_at_rest_are_hashed_and_sealed(api: Api, runtime: Runtime):
    team = await api.team()
    async with runtime.db.statement() as tx:
        sealed = await tx.scalar(
            select(tables.teams.c.callback_secret_sealed).where(tables.teams.c.id == team["team_id"])
        )
        key_hash = await tx.scalar(
            select(tables.virtual_keys.c.hash).where(tables.virtual_keys.c.team_id == team["team_id"])
        )
    opened_ = runtime.sealer.open(sealed, purpose=f"teams.callback_secret:{team['team_id']}")
    assert opened_ == team["callback_secret"]
    assert bytes(key_hash) == key_secrets.key_hash(team["virtual_key"])


async def test_another_team_is_closed(api: Api):
    team, other = await api.team(), await api.team()
    closed = (403, "Cannot access a different team")

    assert refusal(await api.get(f"/teams/{other['team_id']}", key=team["virtual_key"])) == closed
    assert refusal(await api.get("/teams/nobody", key=team["virtual_key"])) == closed


@pytest.mark.parametrize("name", ["nobody", "a%00b", "a%20b"])
async def test_unknown_or_malformed_team_is_404(api: Api, name: str):
    for method, path in (("GET", ""), ("POST", "/suspend"), ("PUT", "/resume"), ("GET", "/credits")):
        answer = await api.send(method, f"/teams/{name}{path}")
        assert answer.status_code == 404, path


async def test_creation_is_refused_for_unknown_things_and_leaves_nothing(api: Api):
    organization = (await api.organization())["organization_id"]
    body: dict[str, Any] = {"organization_id": organization, "team_id": unique("team"), "credits_allocated": 5}

    lost = await api.post("/teams/create", {**body, "organization_id": "nowhere"})
    assert refusal(lost) == (404, "Organization 'nowhere' not found")
    ungrouped = await api.post("/teams/create", {**body, "model_groups": ["nothing"]})
    assert refusal(ungrouped) == (404, "Model access group 'nothing' not found")
    unknown = await api.post("/teams/create", {**body, "budget_mode": "zzz"})
    words = "job_based, consumption_usd, consumption_tokens"
    assert refusal(unknown) == (400, f"Invalid budget_mode: zzz. Must be one of: {words}")
    assert (await api.get(f"/teams/{body['team_id']}")).status_code == 404
    made(await api.post("/teams/create", body))


async def test_of_two_creates_at_once_one_wins(api: Api):
    organization = (await api.organization())["organization_id"]
    body = {"organization_id": organization, "team_id": unique("team"), "credits_allocated": 7}
    answers = await asyncio.gather(*(api.post("/teams/create", body) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    refused = next(answer for answer in answers if answer.status_code == 400)
    assert refusal(refused) == (400, f"Team '{body['team_id']}' already exists")
    assert made(await api.get(f"/teams/{body['team_id']}"))["credits_allocated"] == 7


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"budget_mode": "consumption_usd"}, {"budget_mode": "consumption_usd", "limit_mode": "hard"}),
        ({"budget_mode": "consumption_tokens"}, {"budget_mode": "consumption_tokens"}),
        ({"budget_mode": "soft"}, {"budget_mode": "job_based", "limit_mode": "soft"}),
        ({"limit_mode": "unlimited"}, {"budget_mode": "job_based", "limit_mode": "unlimited"}),
        ({"budget_mode": "unlimited", "limit_mode": "soft"}, {"limit_mode": "soft"}),
        ({"credit_limit": 100}, {"credit_limit": 100}),
        ({"max_parallel_calls": 3, "max_queued_calls": 0}, {"max_parallel_calls": 3, "max_queued_calls": 0}),
        ({"store_payloads": False}, {"store_payloads": False}),
        (
            {"max_budget_usd": 12.5, "budget_duration": "1mo"},
            {"max_budget_usd": 12.5, "budget_duration": "1mo", "budget_spent_usd": 0.0},
        ),
        ({"max_budget_usd": 0.000000001}, {"max_budget_usd": 0.000000001, "budget_duration": None}),
    ],
)
async def test_modes_and_limits_are_kept(api: Api, sent: dict[str, Any], shown: dict[str, Any]):
    team = await api.team(**sent)
    found = made(await api.get(f"/teams/{team['team_id']}"))
    for name, value in shown.items():
        assert team[name] == found[name] == value
    credits_ = found["credits"]
    for name in ("budget_mode", "limit_mode", "credit_limit"):
        assert credits_[name] == found[name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("team_id", "create"),
        ("team_id", "a/b"),
        ("credits_allocated", -1),
        ("credits_allocated", 1.5),
        ("credits_allocated", 10**16),
        ("rpm_limit", -1),
        ("rpm_limit", 2**31),
        ("weight", 0),
        ("weight", 101),
        ("cost_markup_percentage", 1001),
        ("credits_per_dollar", 0),
        ("tokens_per_credit", 0),
        ("limit_mode", "zzz"),
        ("virtual_key", "key-1234"),
        ("virtual_key", "sk-with blank"),
        ("metadata", []),
        ("credit_limit", -1),
        ("max_parallel_calls", 0),
        ("max_queued_calls", -1),
        ("max_budget_usd", -1),
        ("max_budget_usd", "NaN"),
        ("budget_duration", "1y"),
        ("budget_duration", "30d"),
        ("store_payloads", "maybe"),
    ],
)
async def test_wrong_values_are_refused_at_their_field(api: Api, field: str, value: object):
    body = {"organization_id": "any", "team_id": unique("team"), field: value}
    assert wrong_place(await api.post("/teams/create", body)) == ["body", field]


async def test_null_is_the_same_as_left_out(api: Api):
    team = await api.team(credits_allocated=None, metadata=None, access_groups=None, weight=None)
    assert (team["credits_allocated"], team["metadata"], team["access_groups"], team["weight"]) == (0, {}, [], 1)


async def test_own_key_works_and_belongs_to_one_team(api: Api):
    key = f"sk-{unique('own')}"
    team = await api.team(virtual_key=key)
    assert team["virtual_key"] == key
    made(await api.get(f"/teams/{team['team_id']}", key=key))

    body = {"organization_id": team["organization_id"], "team_id": unique("team"), "virtual_key": key}
    answer = await api.post("/teams/create", body)
    assert refusal(answer) == (400, "Virtual key already exists")
    assert (await api.get(f"/teams/{body['team_id']}")).status_code == 404


async def test_short_own_keys_are_for_development_only(api: Api, runtime: Runtime):
    organization = (await api.organization())["organization_id"]
    body = {"organization_id": organization, "team_id": unique("team"), "virtual_key": f"sk-{unique('')[-9:]}"}
    production = runtime.settings.model_copy(update={"env": "production"})
    async with opened(Runtime(**{**vars(runtime), "settings": production})) as strict:
        assert wrong_place(await strict.post("/teams/create", body)) == ["body", "virtual_key"]
    made(await api.post("/teams/create", body))


async def test_the_admin_key_cannot_be_a_team_key(runtime: Runtime):
    settings = runtime.settings.model_copy(update={"admin_key": type(runtime.settings.admin_key)("sk-admin-key")})
    async with opened(Runtime(**{**vars(runtime), "settings": settings})) as api:
        organization = (await api.organization())["organization_id"]
        body = {"organization_id": organization, "team_id": unique("team"), "virtual_key": "sk-admin-key"}
        assert wrong_place(await api.post("/teams/create", body)) == ["body", "virtual_key"]


async def test_allowed_aliases_follow_group_and_member_order(api: Api):
    a, b, c, off = [(await api.alias(active=active))["alias"] for active in (True, True, True, False)]
    second = (await api.group(model_aliases=[a, b]))["group_name"]
    first = (await api.group(model_aliases=[c, off, b]))["group_name"]

    team = await api.team(access_groups=[first, second, first])
    assert team["access_groups"] == [first, second]
    assert team["allowed_model_aliases"] == [c, b, a]


async def test_teams_are_listed_newest_first_page_by_page(api: Api):
    organization = (await api.organization())["organization_id"]
    ours = [(await api.team(organization_id=organization, credits_allocated=n))["team_id"] for n in (1, 2, 3)]

    first = await api.get("/teams?limit=2")
    assert [team["team_id"] for team in first.json()] == [ours[2], ours[1]]
    assert first.headers["link"] == '</api/teams?limit=2&offset=2>; rel="next"'
    total = int(first.headers["x-total-count"])
    rest = await api.get(f"/teams?limit=1&offset={total - 1}")
    assert "link" not in rest.headers
    assert len(rest.json()) == 1
    one = made(await api.get(f"/teams/{ours[2]}"))
    assert first.json()[0] == one
    assert one["credits_allocated"] == 3


async def test_only_admins_list_teams(api: Api):
    team = await api.team()
    assert refusal(await api.get("/teams", key=team["virtual_key"])) == (403, "Admin access required")
    assert wrong_place(await api.get("/teams?limit=1001")) == ["query", "limit"]


async def test_a_key_tells_whose_it_is(api: Api):
    team = await api.team()
    assert made(await api.get("/teams/verify", key=team["virtual_key"])) == {
        "team_id": team["team_id"],
        "organization_id": team["organization_id"],
        "status": "active",
        "key_name": key_secrets.hint(team["virtual_key"]),
    }
    assert refusal(await api.get("/teams/verify", key="sk-unknown")) == (401, "Invalid API key")


async def test_usage_summary_is_what_the_jobs_came_to(scene: Scene):
    scene.live = False
    team = await scene.team()
    job = await team.job(calls=[{"messages": HELLO}])
    await scene.work_on(job["calls"][0]["call_id"])
    await team.job()
    summary = {"total_jobs": 2, "total_cost_usd": money.usd(COST_NANOUSD)}
    assert (await team.get(f"/teams/{team.id}")).json()["usage_summary"] == summary


async def test_a_repeated_create_shows_the_same_secrets_once_made(api: Api):
    organization = (await api.organization())["organization_id"]
    body = {"organization_id": organization, "team_id": unique("team")}
    headers = {**api.admin, "Idempotency-Key": "create"}
    first = await api.client.post("/api/teams/create", json=body, headers=headers)
    again = await api.client.post("/api/teams/create", json=body, headers=headers)
    assert made(first) == made(again)
    assert again.headers["idempotent-replayed"] == "true"
