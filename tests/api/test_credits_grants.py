"""Replenishing, refunding and refilling: what each adds, refuses, audits, and does once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.credit_accounts import adjust
from shared.errors import BadRequest
from tests.api.admin import Api, made, refusal, wrong_place
from tests.scene import HELLO, Scene, Team

NO_AMOUNT = "refill_amount must be a positive integer when enabling auto-refill"
NOT_POSITIVE = (400, "credits must be a positive integer")
ROUTES = ("replenish", "refund", "configure-auto-refill")


async def entries(api: Api, team_id: str) -> list[dict[str, Any]]:
    """The ledger, oldest first."""
    found: list[dict[str, Any]] = made(await api.get(f"/credits/teams/{team_id}/transactions"))["transactions"]
    return found[::-1]


async def balanced(api: Api, team_id: str) -> dict[str, Any]:
    """The balance, which is the sum of the entries, each beginning where the one before ended."""
    account = made(await api.get(f"/credits/teams/{team_id}/balance"))
    remaining = 0
    for entry in await entries(api, team_id):
        assert entry["credits_before"] == remaining
        remaining = entry["credits_after"]
    assert account["credits_remaining"] == account["credits_allocated"] - account["credits_used"] == remaining
    return account


async def charged_job(team: Team) -> str:
    """A completed job that cost its team a credit."""
    body = {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}]}
    ended = made(await team.post("/jobs/create", body, Prefer="wait=10"))
    assert (ended["status"], ended["costs"]["credit_applied"]) == ("completed", True)
    job_id: str = ended["job_id"]
    return job_id


def job_refunds(scene: Scene, team: Team, job_id: str, **fields: Any) -> Any:
    return scene.api.post(f"/credits/teams/{team.id}/refund", {"job_id": job_id, **fields})


@pytest.mark.parametrize(("payment_type", "kind"), [
    ("subscription", "subscription_payment"), ("one_time", "one_time_payment"),
])  # fmt: skip
async def test_credits_are_replenished_with_their_payment(scene: Scene, payment_type: str, kind: str):
    team = await scene.api.team(credits_allocated=40)
    body = {"credits": 500.0, "payment_type": payment_type, "payment_amount_usd": 49.99, "reason": "Invoice 9"}
    answer = made(await scene.api.post(f"/credits/teams/{team['team_id']}/replenish", body))

    entry = answer.pop("transaction")
    assert answer == {
        "team_id": team["team_id"],
        "credits_added": 500,
        "credits_before": 40,
        "credits_after": 540,
        "payment_type": payment_type,
        "payment_amount_usd": 49.99,
    }
    assert (entry["transaction_type"], entry["credits_amount"], entry["reason"]) == (kind, 500, "Invoice 9")
    sql = "select payment_nanousd from credit_entries where team_id = :id and kind = :kind"
    assert (await scene.row(sql, id=team["team_id"], kind=kind)).payment_nanousd == 49_990_000_000
    assert (await balanced(scene.api, team["team_id"]))["credits_allocated"] == 540


async def test_replenishing_needs_credits_and_a_payment_type(api: Api):
    name = (await api.team())["team_id"]
    path = f"/credits/teams/{name}/replenish"
    for body, place in (({"payment_type": "one_time"}, "credits"), ({"credits": 1}, "payment_type")):
        assert wrong_place(await api.post(path, body)) == ["body", place]
    bad = await api.post(path, {"credits": 1, "payment_type": "gift"})
    assert refusal(bad) == (400, "payment_type must be 'subscription' or 'one_time'")
    for amount in (0, -1, 0.5):
        assert refusal(await api.post(path, {"credits": amount, "payment_type": "one_time"})) == NOT_POSITIVE
    below = {"credits": 1, "payment_type": "one_time", "payment_amount_usd": -1}
    assert wrong_place(await api.post(path, below)) == ["body", "payment_amount_usd"]
    unpaid = made(await api.post(path, {"credits": 1, "payment_type": "one_time"}))
    assert unpaid["payment_amount_usd"] is None


@pytest.mark.parametrize("route", ROUTES)
async def test_writing_routes_are_for_admins_and_existing_teams(api: Api, route: str):
    body = {"credits": 1, "payment_type": "one_time", "enabled": False}
    for name in ("nobody", "a%20b", "a%00b"):
        answer = await api.post(f"/credits/teams/{name}/{route}", body)
        assert answer.status_code == 404, answer.text
    assert refusal(await api.post(f"/credits/teams/nobody/{route}", body)) == (404, "Team 'nobody' not found")
    team = await api.team()
    own = await api.post(f"/credits/teams/{team['team_id']}/{route}", body, key=team["virtual_key"])
    assert refusal(own) == (403, "Admin access required")


async def test_a_jobs_charge_is_refunded(scene: Scene):
    team = await scene.team(credits=10)
    job_id = await charged_job(team)
    answer = made(await job_refunds(scene, team, job_id, reason="Bad answer"))

    entry = answer.pop("transaction")
    assert answer == {"team_id": team.id, "credits_refunded": 1, "credits_remaining": 10}
    assert (entry["job_id"], entry["transaction_type"], entry["credits_amount"]) == (job_id, "refund", 1)
    account = await balanced(scene.api, team.id)
    assert (account["credits_allocated"], account["credits_used"]) == (10, 0)
    assert refusal(await job_refunds(scene, team, job_id)) == (409, "Job was already refunded")
    assert (await balanced(scene.api, team.id))["credits_remaining"] == 10


async def test_a_job_is_refunded_once_by_many_at_once(scene: Scene):
    team = await scene.team(credits=10)
    job_id = await charged_job(team)
    answers = await asyncio.gather(*(job_refunds(scene, team, job_id) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200, *([409] * 7)]
    assert (await balanced(scene.api, team.id))["credits_remaining"] == 10


async def test_only_charged_jobs_of_the_team_are_refunded(scene: Scene):
    team, other = await scene.team(), await scene.team()
    uncharged, charged = (await team.job())["job_id"], await charged_job(other)

    assert refusal(await job_refunds(scene, team, uncharged)) == (400, "Job was not charged")
    for unknown in (charged, str(uuid4()), "no-id"):
        assert refusal(await job_refunds(scene, team, unknown)) == (404, "Job not found")
    too_much = await job_refunds(scene, other, charged, credits=2)
    assert refusal(too_much) == (400, "Job was charged 1 credits, no more can be refunded")
    assert (await balanced(scene.api, team.id))["credits_remaining"] == 1000


async def test_a_deleted_team_gets_no_refund_and_is_told_that_it_is_gone(scene: Scene):
    team = await scene.team(credits=10)
    job_id = await charged_job(team)
    made(await scene.api.send("DELETE", f"/teams/{team.id}"))
    assert refusal(await job_refunds(scene, team, job_id)) == (404, f"Team '{team.id}' not found")


async def test_a_refund_after_used_was_set_back_leaves_used_at_zero(scene: Scene):
    team = await scene.team(credits=10)
    job_id = await charged_job(team)
    async with scene.rt.db.transaction() as tx:
        await adjust(tx, team.id, used=0)
    made(await job_refunds(scene, team, job_id))

    account = await balanced(scene.api, team.id)
    assert (account["credits_allocated"], account["credits_used"], account["credits_remaining"]) == (11, 0, 11)


async def test_credits_are_refunded_without_a_job(api: Api):
    name = (await api.team(credits_allocated=5))["team_id"]
    answer = made(await api.post(f"/credits/teams/{name}/refund", {"credits": 3}))
    assert (answer["credits_refunded"], answer["credits_remaining"]) == (3, 8)
    account = await balanced(api, name)
    assert (account["credits_allocated"], account["credits_used"]) == (8, 0)

    assert wrong_place(await api.post(f"/credits/teams/{name}/refund", {"reason": "x"})) == ["body", "job_id"]
    assert refusal(await api.post(f"/credits/teams/{name}/refund", {"credits": 0})) == NOT_POSITIVE


async def test_a_repeated_post_adds_once(api: Api):
    name = (await api.team())["team_id"]
    for path, body in (
        ("/credits/add", {"team_id": name, "amount": 2}),
        (f"/teams/{name}/credits/allocate", {"amount": 2}),
        (f"/credits/teams/{name}/replenish", {"credits": 2, "payment_type": "one_time"}),
        (f"/credits/teams/{name}/refund", {"credits": 2}),
        (f"/credits/teams/{name}/check", None),
    ):
        headers = {**api.admin, "Idempotency-Key": "once"}
        first, again = [await api.client.post(f"/api{path}", json=body, headers=headers) for _ in range(2)]
        assert made(first) == made(again)
        assert again.headers["idempotent-replayed"] == "true"
    assert (await balanced(api, name))["credits_remaining"] == 8


async def test_posts_with_one_key_at_once_add_once(api: Api):
    name = (await api.team())["team_id"]
    headers = {**api.admin, "Idempotency-Key": "race"}

    async def add() -> httpx.Response:
        return await api.client.post("/api/credits/add", json={"team_id": name, "amount": 5}, headers=headers)

    answers = await asyncio.gather(*(add() for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["transaction_id"] for answer in answers}) == 1
    assert (await balanced(api, name))["credits_remaining"] == 5


async def test_additions_refunds_and_charges_at_once_add_up(scene: Scene):
    team = await scene.team(credits=20)
    charged = [await charged_job(team) for _ in range(4)]
    add = {"team_id": team.id, "amount": 3}
    answers = await asyncio.gather(
        *(charged_job(team) for _ in range(8)),
        *(scene.api.post("/credits/add", add) for _ in range(8)),
        *(job_refunds(scene, team, job_id) for job_id in charged * 2),
    )

    refunded = [answer.status_code for answer in answers[16:]]
    assert sorted(refunded) == [200] * 4 + [409] * 4
    account = await balanced(scene.api, team.id)
    assert (account["credits_allocated"], account["credits_used"], account["credits_held"]) == (44, 8, 0)


async def test_every_write_is_audited(scene: Scene):
    api, name = scene.api, (await scene.api.team())["team_id"]
    made(await api.post("/credits/add", {"team_id": name, "amount": 2}))
    made(await api.post(f"/credits/teams/{name}/replenish", {"credits": 3, "payment_type": "one_time"}))
    made(await api.post(f"/credits/teams/{name}/refund", {"credits": 4}))
    made(await api.post(f"/credits/teams/{name}/configure-auto-refill", {"enabled": False}))
    made(await api.send("PATCH", f"/credits/teams/{name}/conversion-rates", {"tokens_per_credit": 5}))
    made(await api.send("PATCH", f"/credits/teams/{name}/budget-mode", {"budget_mode": "soft"}))

    sql = (
        "select action, user_id, details from audit_log where resource_type = 'team' and resource_id = :id order by id"
    )
    lines = [line for line in await scene.rows(sql, id=name) if line.action != "created_team"]
    assert [line.action for line in lines] == [
        "added_credits",
        "replenished_credits",
        "refunded_credits",
        "configured_auto_refill",
        "updated_conversion_rates",
        "updated_budget_mode",
    ]
    assert [line.details.get("credits") for line in lines[:3]] == [2, 3, 4]
    assert {line.user_id for line in lines} == {"admin_key"}


async def test_adjusting_writes_the_differences(scene: Scene):
    team = await scene.team(credits=10)
    await charged_job(team)
    async with scene.rt.db.transaction() as tx:
        written = await adjust(tx, team.id, allocated=4, used=3)
    assert [(entry.kind, entry.amount) for entry in written] == [("adjustment", -2), ("adjustment", -6)]
    account = await balanced(scene.api, team.id)
    assert (account["credits_allocated"], account["credits_used"]) == (4, 3)

    async with scene.rt.db.transaction() as tx:
        assert await adjust(tx, team.id, allocated=4, used=3) == []
        assert await adjust(tx, "nobody", allocated=4) == []


async def test_a_hard_account_is_not_adjusted_below_zero(scene: Scene):
    team = await scene.team(credits=10)
    await team.call((await team.job())["job_id"])
    for change in ({"allocated": 0}, {"used": 10}):
        with pytest.raises(BadRequest, match=r"'hard' does not let credits_available fall below zero.*-1"):
            async with scene.rt.db.transaction() as tx:
                await adjust(tx, team.id, **change)
    assert await team.credits() == (10, 1, 9)
    async with scene.rt.db.transaction() as tx:
        await adjust(tx, team.id, allocated=1, used=0)
        assert [entry.amount for entry in await adjust(tx, team.id, allocated=20, used=19)] == [19, -19]
    assert await team.credits() == (1, 1, 0)


async def test_thresholds_no_longer_crossed_may_be_told_of_again(scene: Scene):
    team = await scene.api.team(credits_allocated=100)
    name = team["team_id"]
    sql = "update credit_accounts set used = 95, alerted_percentage = 90 where team_id = :id returning 1"
    await scene.rows(sql, id=name)
    levels = []
    for amount in (1, 10, 8, 100):  # 95 of 101, 111, 119, 219
        made(await scene.api.post("/credits/add", {"team_id": name, "amount": amount}))
        row = await scene.row("select alerted_percentage from credit_accounts where team_id = :id", id=name)
        levels.append(row.alerted_percentage)
    assert levels == [90, 80, 0, 0]


async def test_auto_refill_is_configured(api: Api):
    name = (await api.team())["team_id"]
    path = f"/credits/teams/{name}/configure-auto-refill"
    before = datetime.now(UTC)
    on = made(await api.post(path, {"enabled": True, "refill_amount": 100.0, "refill_period": "weekly"}))

    next_at = datetime.fromisoformat(on.pop("next_refill_at"))
    assert timedelta(days=6, hours=23) < next_at - before < timedelta(days=7, hours=1)
    assert on == {
        "team_id": name,
        "auto_refill_enabled": True,
        "refill_amount": 100,
        "refill_period": "weekly",
        "last_refill_at": None,
        "message": "Auto-refill enabled successfully",
    }
    shown = made(await api.get(f"/credits/teams/{name}/balance"))
    assert (shown["auto_refill"], shown["refill_amount"], shown["refill_period"]) == (True, 100, "weekly")
    assert datetime.fromisoformat(shown["next_refill_at"]) == next_at

    off = made(await api.post(path, {"enabled": False}))
    assert (off["auto_refill_enabled"], off["next_refill_at"]) == (False, None)
    assert off["message"] == "Auto-refill disabled successfully"


async def test_configuring_the_same_period_again_does_not_put_the_refill_off(api: Api):
    name = (await api.team())["team_id"]
    path = f"/credits/teams/{name}/configure-auto-refill"
    first, again, other = [
        made(await api.post(path, {"enabled": True, "refill_amount": amount, "refill_period": period}))
        for amount, period in ((10, "daily"), (20, "daily"), (20, "monthly"))
    ]
    assert again["next_refill_at"] == first["next_refill_at"]
    assert again["refill_amount"] == 20
    assert other["next_refill_at"] > first["next_refill_at"]


@pytest.mark.parametrize(("fields", "text"), [
    ({"refill_period": "daily"}, NO_AMOUNT),
    ({"refill_period": "daily", "refill_amount": 0}, NO_AMOUNT),
    ({"refill_period": "daily", "refill_amount": 1.5}, NO_AMOUNT),
    ({"refill_amount": 1}, "refill_period must be specified when enabling auto-refill"),
    ({"refill_amount": 1, "refill_period": "yearly"}, "refill_period must be 'monthly', 'weekly', or 'daily'"),
])  # fmt: skip
async def test_auto_refill_needs_amount_and_period(api: Api, fields: dict[str, Any], text: str):
    name = (await api.team())["team_id"]
    path = f"/credits/teams/{name}/configure-auto-refill"
    assert refusal(await api.post(path, {"enabled": True, **fields})) == (400, text)
    assert made(await api.get(f"/credits/teams/{name}/balance"))["auto_refill"] is False
    assert wrong_place(await api.post(path, {"refill_amount": 1})) == ["body", "enabled"]
