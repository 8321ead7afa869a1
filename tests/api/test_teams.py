"""Teams: all or nothing at creation, secrets shown once, suspended at once."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from shared import credentials, tables
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, refusal, unique, wrong_place

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
        "virtual_key": credentials.hint(team["virtual_key"]),
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
    assert bytes(key_hash) == credentials.key_hash(team["virtual_key"])


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
    ("field", "value"),
    [
        ("budget_mode", "consumption_usd"),
        ("budget_mode", "consumption_tokens"),
        ("budget_mode", "soft"),
        ("limit_mode", "soft"),
        ("limit_mode", "unlimited"),
        ("credit_limit", 100),
        ("max_parallel_calls", 3),
        ("max_queued_calls", 3),
        ("store_payloads", False),
    ],
)
async def test_what_is_not_served_yet_is_said(api: Api, field: str, value: object):
    organization = (await api.organization())["organization_id"]
    body = {"organization_id": organization, "team_id": unique("team"), field: value}
    answer = await api.post("/teams/create", body)

    assert wrong_place(answer) == ["body", field]
    assert answer.json()["detail"][0]["msg"] == "not supported yet"


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


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_suspended_team_reads_itself_only_until_resumed(api: Api, runtime: Runtime, method: str):
    team = await api.team()
    name, key = team["team_id"], team["virtual_key"]
    suspended = {"team_id": name, "status": "suspended", "message": f"Team '{name}' has been suspended"}
    assert made(await api.send(method, f"/teams/{name}/suspend", {"reason": "unpaid"})) == suspended
    assert made(await api.send(method, f"/teams/{name}/suspend")) == suspended

    async with opened(runtime) as fresh:  # another process: it has not seen this key yet
        refused = await fresh.get(f"/teams/{name}/credits", key=key)
        assert refusal(refused) == (403, "Team access is suspended. Please contact support.")
        assert made(await fresh.get(f"/teams/{name}", key=key))["status"] == "suspended"

    resumed = {"team_id": name, "status": "active", "message": f"Team '{name}' has been resumed"}
    assert made(await api.send(method, f"/teams/{name}/resume")) == resumed
    async with opened(runtime) as fresh:
        made(await fresh.get(f"/teams/{name}/credits", key=key))


async def test_allowed_aliases_follow_group_and_member_order(api: Api):
    a, b, c, off = [(await api.alias(active=active))["alias"] for active in (True, True, True, False)]
    second = (await api.group(model_aliases=[a, b]))["group_name"]
    first = (await api.group(model_aliases=[c, off, b]))["group_name"]

    team = await api.team(access_groups=[first, second, first])
    assert team["access_groups"] == [first, second]
    assert team["allowed_model_aliases"] == [c, b, a]
