"""Credit routes: the balance by every path, and additions by admins only."""

import asyncio

import pytest

from tests.api.admin import Api, made, refusal, wrong_place

BALANCES = ("/credits/balance?team_id={}", "/credits/teams/{}/balance", "/teams/{}/credits")
LISTS = ("/credits/transactions?team_id={}", "/credits/teams/{}/transactions", "/teams/{}/credits/transactions")
ADDITIONS = ("/credits/add", "/credits/teams/{}/add")


async def test_balance_is_the_same_by_every_path(api: Api):
    team = await api.team(credits_allocated=40, cost_markup_percentage=5)
    name, key = team["team_id"], team["virtual_key"]

    for path in BALANCES:
        assert made(await api.get(path.format(name))) == team["credits"]
        own = made(await api.get(path.format(name), key=key))
        assert {**own, "cost_markup_percentage": 5.0} == team["credits"]
        assert "cost_markup_percentage" not in own
    assert made(await api.get("/credits/balance", key=key))["team_id"] == name


async def test_an_admin_names_the_team(api: Api):
    assert wrong_place(await api.get("/credits/balance")) == ["query", "team_id"]


@pytest.mark.parametrize("path", BALANCES)
async def test_balance_of_others_and_of_nobody(api: Api, path: str):
    team, other = await api.team(), await api.team()

    closed = await api.get(path.format(other["team_id"]), key=team["virtual_key"])
    assert refusal(closed) == (403, "Cannot access credit balance for a different team")
    assert refusal(await api.get(path.format("nobody"))) == (404, "No credit account found for team 'nobody'")
    assert (await api.get(path.format("a%00b"))).status_code in {404, 422}


@pytest.mark.parametrize("path", ADDITIONS)
@pytest.mark.parametrize("amount", ["amount", "credits", "credits_amount"])
async def test_credits_are_added_under_every_name(api: Api, path: str, amount: str):
    team = await api.team(credits_allocated=500)
    body = {"team_id": team["team_id"], amount: 100.0, "reason": "Invoice 7"}
    added = made(await api.post(path.format(team["team_id"]), body))

    entry = added["transaction"]
    assert added == {
        "team_id": team["team_id"],
        "credits_added": 100,
        "credits_allocated": 600,
        "credits_remaining": 600,
        "transaction_id": entry["transaction_id"],
        "transaction": entry,
    }
    assert entry == {
        "transaction_id": entry["transaction_id"],
        "team_id": team["team_id"],
        "organization_id": team["organization_id"],
        "job_id": None,
        "transaction_type": "allocation",
        "type": "addition",
        "credits_amount": 100,
        "amount": 100,
        "credits_before": 500,
        "credits_after": 600,
        "balance_after": 600,
        "reason": "Invoice 7",
        "description": "Invoice 7",
        "created_at": entry["created_at"],
        "timestamp": entry["created_at"],
    }
    assert entry["transaction_id"].startswith("txn_")
    assert len(entry["transaction_id"]) == 36


async def test_allocate_answers_with_the_transaction(api: Api):
    team = await api.team()
    entry = made(await api.post(f"/teams/{team['team_id']}/credits/allocate", {"credits": 3}))
    assert (entry["credits_amount"], entry["reason"]) == (3, "Manual credit allocation")


@pytest.mark.parametrize("amount", [0, -1, 0.5])
async def test_only_whole_positive_numbers_are_added(api: Api, amount: float):
    team = await api.team(credits_allocated=5)
    answer = await api.post("/credits/add", {"team_id": team["team_id"], "amount": amount})

    assert refusal(answer) == (400, "credits must be a positive integer")
    assert made(await api.get(f"/teams/{team['team_id']}/credits"))["credits_remaining"] == 5


@pytest.mark.parametrize("amount", ["100", True, [1], 10**16, 1e300])
async def test_other_values_are_no_amounts(api: Api, amount: object):
    answer = await api.post("/credits/add", {"team_id": "any", "amount": amount})
    assert wrong_place(answer)[:2] == ["body", "amount"]


async def test_addition_to_nobody(api: Api):
    unknown = await api.post("/credits/add", {"team_id": "nobody", "amount": 1})
    assert refusal(unknown) == (404, "Team 'nobody' not found")
    assert wrong_place(await api.post("/credits/add", {"amount": 1})) == ["body", "team_id"]


async def test_additions_at_once_all_count(api: Api):
    team = await api.team()
    body = {"team_id": team["team_id"], "amount": 5}
    answers = await asyncio.gather(*(api.post("/credits/add", body) for _ in range(8)))

    assert sorted(made(answer)["credits_remaining"] for answer in answers) == list(range(5, 45, 5))


@pytest.mark.parametrize("path", LISTS)
async def test_transactions_come_newest_first_and_add_up(api: Api, path: str):
    team = await api.team(credits_allocated=10)
    name = team["team_id"]
    for amount in (1, 2, 3):
        made(await api.post("/credits/add", {"team_id": name, "amount": amount}))

    found = made(await api.get(path.format(name), key=team["virtual_key"]))
    assert {key: found[key] for key in ("team_id", "total", "limit", "offset")} == {
        "team_id": name,
        "total": 4,
        "limit": 100,
        "offset": 0,
    }
    assert [entry["credits_amount"] for entry in found["transactions"]] == [3, 2, 1, 10]
    assert [entry["credits_after"] for entry in found["transactions"]] == [16, 13, 11, 10]
    assert found["transactions"][-1]["reason"] == "Initial credit allocation"


async def test_transactions_are_paged_with_a_link(api: Api):
    team = await api.team(credits_allocated=10)
    for amount in (1, 2):
        made(await api.post("/credits/add", {"team_id": team["team_id"], "amount": amount}))
    first = await api.get(f"/credits/transactions?team_id={team['team_id']}&limit=2")
    assert made(first)["total"] == 3

    link, _, relation = first.headers["link"].partition(">")
    assert relation == '; rel="next"'
    second = await api.client.get(link.removeprefix("<"), headers=api.admin)
    assert [entry["credits_amount"] for entry in made(second)["transactions"]] == [10]
    assert "link" not in second.headers


async def test_transactions_are_filtered(api: Api):
    team = await api.team(credits_allocated=10)
    path = f"/teams/{team['team_id']}/credits/transactions"
    entry = made(await api.get(path))["transactions"][0]
    day, moment = entry["created_at"][:10], entry["created_at"]

    for query, total in (
        ("transaction_type=allocation", 1),
        ("transaction_type=refund", 0),
        ("job_id=019aa3c2-81f0-7d12-8e3b-6a7c8d9e0f1a", 0),
        (f"start_date={day}&end_date={day}", 1),
        (f"start_date={moment}&end_date={moment}", 1),
        ("end_date=2020-01-01", 0),
        ("start_date=2999-01-01", 0),
        ("end_date=9999-12-31", 1),
    ):
        assert made(await api.get(f"{path}?{query}"))["total"] == total, query


async def test_wrong_transaction_queries_are_refused(api: Api):
    team = await api.team()
    path = f"/teams/{team['team_id']}/credits/transactions"
    for query, field in (
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("offset=-1", "offset"),
        ("job_id=x", "job_id"),
        ("transaction_type=gift", "transaction_type"),
    ):
        assert wrong_place(await api.get(f"{path}?{query}")) == ["query", field]
    for field in ("start_date", "end_date"):
        text = f"Invalid {field} format: zzz. Use ISO format (YYYY-MM-DD)"
        assert refusal(await api.get(f"{path}?{field}=zzz")) == (400, text)
    assert wrong_place(await api.get("/credits/transactions")) == ["query", "team_id"]


async def test_transactions_of_others_and_of_nobody(api: Api):
    team, other = await api.team(), await api.team()
    for path in LISTS:
        closed = await api.get(path.format(other["team_id"]), key=team["virtual_key"])
        assert refusal(closed) == (403, "Cannot access credit transactions for a different team")
        assert refusal(await api.get(path.format("nobody"))) == (404, "No credit account found for team 'nobody'")
