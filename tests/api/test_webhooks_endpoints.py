"""Webhook endpoints after their registration: listed, read, changed, deleted, disabled and enabled again."""

import asyncio
from typing import Any

import pytest

from shared import delivery_queues, ids, webhook_endpoints
from tests.api.admin import made, refusal, wrong_place
from tests.api.endpoint_requests import (
    OTHER_URL,
    URL,
    change,
    event,
    open_circuit,
    read,
    register,
    rung,
    set_columns,
    states,
    stored,
)
from tests.api.people import person
from tests.scene import Scene
from tests.waiting import until

UNKNOWN = (404, "Webhook not found")
ROUTES = (
    ("GET", ""), ("PATCH", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/disable"),
    ("POST", "/test"), ("GET", "/stats"),
)  # fmt: skip


async def test_what_was_registered_is_read_without_its_secret(scene: Scene):
    team = await scene.team()
    hook = await register(team, headers={"X-B": "1", "X-A": "2"}, auth_header="Bearer hidden")

    shown = await read(team, hook)

    assert shown == {name: value for name, value in hook.items() if name != "secret"}
    assert (shown["header_names"], shown["has_auth_header"]) == (["X-A", "X-B"], True)
    admins = made(await scene.api.get(f"/webhooks/{hook['id']}"))
    assert admins == shown


async def test_list_has_the_teams_own_newest_first(scene: Scene):
    team, other = await scene.team(), await scene.team()
    first, second = await register(team), await register(team, is_active=False)
    await register(other)

    page = made(await team.get("/webhooks?limit=1"))
    rest = made(await team.get("/webhooks?limit=1&offset=1"))
    disabled = made(await team.get("/webhooks?status=DISABLED"))

    assert [hook["id"] for hook in page["webhooks"] + rest["webhooks"]] == [second["id"], first["id"]]
    assert (page["total"], page["limit"], page["offset"]) == (2, 1, 0)
    assert ([hook["id"] for hook in disabled["webhooks"]], disabled["total"]) == ([second["id"]], 1)
    assert made(await scene.api.get(f"/webhooks?team_id={team.id}"))["total"] == 2


async def test_list_says_where_the_next_page_is(scene: Scene):
    team = await scene.team()
    await register(team)
    await register(team)

    assert 'rel="next"' in (await team.get("/webhooks?limit=1")).headers["link"]
    assert "link" not in (await team.get("/webhooks?limit=2")).headers


async def test_list_that_is_refused(scene: Scene):
    team, other = await scene.team(), await scene.team()

    closed = await team.get(f"/webhooks?team_id={other.id}")
    words = "Invalid status: on. Must be one of: active, pending_verification, disabled"
    assert refusal(closed) == (403, f"API key does not belong to team '{other.id}'")
    assert refusal(await team.get("/webhooks?status=on")) == (400, words)
    assert wrong_place(await scene.api.get("/webhooks")) == ["query", "team_id"]
    assert refusal(await scene.api.get("/webhooks?team_id=nobody")) == (404, "Team 'nobody' not found")


async def test_webhook_nobody_has_and_one_of_another_team(scene: Scene):
    team, other = await scene.team(), await scene.team()
    hook = await register(other)
    for method, path in ROUTES:

        async def ask(id_: str, method: str = method, path: str = path) -> tuple[int, Any]:
            body = None if method == "GET" else {}
            return refusal(await team.send(method, f"/webhooks/{id_}{path}", body))

        assert await ask(hook["id"]) == (403, "Webhook does not belong to your team"), (method, path)
        for unknown in (ids.prefixed("whe", ids.new()), "x", hook["id"].upper()):
            assert await ask(unknown) == UNKNOWN, (method, path)
    assert await read(other, hook) == {name: value for name, value in hook.items() if name != "secret"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_only_what_is_sent_changes(scene: Scene, method: str):
    team = await scene.team()
    hook = await register(team, headers={"X-A": "1"}, auth_header="a", timeout_s=7, metadata={"a": 1})

    body = {"events": ["*"], "description": "ours", "headers": {"X-B": "2"}, "max_rate_per_s": 2, "payload": "full"}
    changed = made(await team.send(method, f"/webhooks/{hook['id']}", body))

    expected = {**hook, **body, "header_names": ["X-B"], "updated_at": changed["updated_at"]}
    assert changed == {name: value for name, value in expected.items() if name not in {"secret", "headers"}}
    assert changed == await read(team, hook)
    opened = scene.rt.sealer.open(
        (await stored(scene, hook)).headers_sealed,
        purpose=f"webhook_endpoints.headers:{(await stored(scene, hook)).id}",
    )
    assert opened == '{"X-B":"2"}'


async def test_null_takes_back_what_was_set(scene: Scene):
    team = await scene.team()
    fields: dict[str, Any] = {
        "auth_header": "a", "headers": {"X-A": "1"}, "timeout_s": 3, "retry_schedule_s": [1], "max_rate_per_s": 1,
        "max_concurrency": 1, "description": "d", "metadata": {"a": 1},
    }  # fmt: skip
    hook, plain = await register(team, **fields), await register(team)

    changed = await change(team, hook, **dict.fromkeys(fields))

    own = {"webhook_id", "id", "created_at", "updated_at", "secret"}
    assert {n: v for n, v in changed.items() if n not in own} == {n: v for n, v in plain.items() if n not in own}


async def test_changed_url_is_checked_like_a_new_one(scene: Scene):
    team = await scene.team()
    hook = await register(team)

    refused = await team.send("PATCH", f"/webhooks/{hook['id']}", {"url": "https://10.0.0.1/"})

    assert refusal(refused) == (400, "webhook_url is not allowed: private address")
    assert (await read(team, hook))["url"] == URL
    assert (await change(team, hook, url=OTHER_URL))["webhook_url"] == OTHER_URL


async def test_change_that_is_refused_changes_nothing(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    bodies: list[dict[str, Any]] = [
        {"ordered": True}, {"events": []}, {"events": None}, {"timeout_s": 31}, {"team_id": "other"},
        {"is_active": None}, {"signing": "v2"},
    ]  # fmt: skip
    for body in bodies:
        refused = await team.send("PATCH", f"/webhooks/{hook['id']}", {"description": "d", **body})
        assert wrong_place(refused)[:2] == ["body", *body], body
    unknown = await team.send("PATCH", f"/webhooks/{hook['id']}", {"events": ["zzz"]})
    assert refusal(unknown) == (400, "Unknown event type: zzz")
    assert (await read(team, hook))["updated_at"] == hook["updated_at"]


async def test_what_was_read_can_be_sent_back(scene: Scene):
    team = await scene.team()
    hook = await register(team, headers={"X-A": "1"}, verify=False)
    shown = await read(team, hook)

    again = made(await team.send("PUT", f"/webhooks/{hook['id']}", shown))

    assert again == {**shown, "updated_at": again["updated_at"]}


async def test_changed_events_count_from_the_change_on(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    before = (await stored(scene, hook)).active_since

    await change(team, hook, events=["job.failed", "job.completed"])
    assert (await stored(scene, hook)).active_since == before
    await change(team, hook, events=["*"])
    assert (await stored(scene, hook)).active_since > before


async def test_signing_with_a_public_key_makes_one(scene: Scene):
    team = await scene.team()
    hook = await register(team)

    both = await change(team, hook, signing="both")
    again = await change(team, hook, signing="v1a")

    assert both["public_key"].startswith("whpk_")
    assert again["public_key"] == both["public_key"]
    assert (await change(team, hook, signing="v1"))["public_key"] is None


async def test_deleted_endpoint_is_gone_and_gets_nothing_more(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await event(team)

    deleted = made(await team.send("DELETE", f"/webhooks/{hook['id']}"))

    assert deleted == {"webhook_id": hook["id"], "deleted": True, "message": "Webhook deleted successfully"}
    assert await states(scene, hook) == [("job.completed", "discarded", "the endpoint was deleted")]
    assert refusal(await team.get(f"/webhooks/{hook['id']}")) == UNKNOWN
    assert refusal(await team.send("DELETE", f"/webhooks/{hook['id']}")) == UNKNOWN
    assert made(await team.get("/webhooks"))["total"] == 0
    await event(team)
    assert len(await states(scene, hook)) == 1
    row = await stored(scene, hook)
    assert (row.auth_header_sealed, row.headers_sealed) == (None, None)


async def test_disabled_endpoint_gets_nothing_and_the_others_hear_of_it(scene: Scene):
    team = await scene.team()
    hook, other = await register(team), await register(team, events=["webhook.endpoint.*"])
    await event(team)

    disabled = made(await team.post(f"/webhooks/{hook['id']}/disable"))

    assert (disabled["status"], disabled["disabled_reason"], disabled["is_active"]) == ("disabled", "manual", False)
    assert await states(scene, hook) == [("job.completed", "discarded", "the endpoint is disabled")]
    assert await states(scene, other) == [("webhook.endpoint.disabled", "pending", None)]
    assert ids.parse_prefixed("whe", other["id"]) in rung(scene)
    await event(team)
    assert len(await states(scene, hook)) == 1
    again = made(await team.post(f"/webhooks/{hook['id']}/disable"))
    assert again == {**disabled, "updated_at": again["updated_at"]}
    assert len(await states(scene, other)) == 1


async def test_endpoint_disabled_twice_at_once_is_told_of_once(scene: Scene):
    team = await scene.team()
    hook, other = await register(team), await register(team, events=["webhook.endpoint.*"])
    waiting = (
        "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() offset 1"
    )
    async with scene.rt.db.transaction() as tx:
        await webhook_endpoints.lock(tx, (await stored(scene, hook)).id)
        asked = [asyncio.create_task(team.post(f"/webhooks/{hook['id']}/disable")) for _ in range(2)]
        await until(lambda: scene.rows(waiting), "two that wait for the endpoint")

    assert [made(await answer)["disabled_reason"] for answer in asked] == ["manual", "manual"]
    assert len(await states(scene, other)) == 1


async def test_endpoint_disabled_by_hand_after_it_was_disabled_for_failing_says_manual(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await set_columns(scene, hook, "status = 'disabled', disabled_reason = 'failing'")

    changed = await change(team, hook, description="still off")
    disabled = made(await team.post(f"/webhooks/{hook['id']}/disable"))

    assert (changed["status"], changed["disabled_reason"]) == ("disabled", "failing")
    assert disabled["disabled_reason"] == "manual"


async def test_enabled_endpoint_begins_anew(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await set_columns(
        scene, hook,
        "status = 'disabled', disabled_reason = 'failing', disabled_at = now(), failing_since = now(), "
        "failed_attempts = 40, noticed_percent = 90, refused_in_a_row = 3, active_since = 'epoch'",
    )  # fmt: skip
    await open_circuit(scene, team, hook)
    assert (await read(team, hook))["circuit"] == "open"

    enabled = made(await team.post(f"/webhooks/{hook['id']}/enable"))

    assert (enabled["status"], enabled["is_active"], enabled["disabled_reason"]) == ("active", True, None)
    assert (enabled["failing_since"], enabled["circuit"]) == (None, "closed")
    row = await stored(scene, hook)
    assert (row.failed_attempts, row.noticed_percent, row.refused_in_a_row, row.disabled_at) == (0, 0, 0, None)
    assert row.active_since > row.created_at
    await event(team)
    assert len(await states(scene, hook)) == 1


async def test_what_was_missed_is_sent_again_after_enabling(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await event(team)
    made(await team.post(f"/webhooks/{hook['id']}/disable"))
    await event(team)

    plain = made(await team.post(f"/webhooks/{hook['id']}/enable"))
    since = {"recover_since": "2020-01-01T00:00:00+00:00"}
    enabled = made(await team.post(f"/webhooks/{hook['id']}/enable", since))

    listed = made(await team.get(f"/webhooks/{hook['id']}/replays"))
    [replay] = listed["replays"]
    assert (plain["replay_id"], enabled["replay_id"], listed["total"]) == (None, replay["replay_id"], 1)
    assert (replay["matched"], replay["state"], replay["webhook_id"]) == (2, "running", hook["id"])
    refused = await team.post(f"/webhooks/{hook['id']}/enable", {"recover_since": "yesterday"})
    assert wrong_place(refused) == ["body", "recover_since"]


async def test_active_flag_disables_and_enables(scene: Scene):
    team = await scene.team()
    hook = await register(team)

    off = await change(team, hook, is_active=False)
    on = await change(team, hook, is_active=True)

    assert (off["status"], off["disabled_reason"]) == ("disabled", "manual")
    assert (on["status"], on["disabled_reason"]) == ("active", None)


async def test_new_url_begins_anew_and_no_other_change_does(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await set_columns(scene, hook, "failing_since = now(), failed_attempts = 4")
    await open_circuit(scene, team, hook)

    kept = await change(team, hook, is_active=True, description="d", url=URL)
    assert (kept["failing_since"] is None, kept["circuit"]) == (False, "open")
    moved = await change(team, hook, url=OTHER_URL)
    assert (moved["failing_since"], moved["circuit"]) == (None, "closed")
    assert (await stored(scene, hook)).failed_attempts == 0


async def test_changed_url_is_verified_again(scene: Scene):
    team = await scene.team()
    hook = await register(team, verify=True)
    await set_columns(scene, hook, "status = 'active'")

    same = await change(team, hook, url=URL, description="d")
    moved = await change(team, hook, url=OTHER_URL)

    assert (same["status"], moved["status"]) == ("active", "pending_verification")
    first, second = await states(scene, hook)
    assert first == ("webhook.test", "discarded", "the URL was changed")
    assert second == ("webhook.test", "pending", None)
    unproven = await change(team, hook, verify=False)
    assert unproven["status"] == "active"


async def test_asking_for_verification_of_an_active_endpoint_starts_it(scene: Scene):
    team = await scene.team()
    hook = await register(team)

    assert (await change(team, hook, verify=True))["status"] == "pending_verification"
    assert await states(scene, hook) == [("webhook.test", "pending", None)]


async def test_enabled_endpoint_that_verifies_takes_a_test_first(scene: Scene):
    team = await scene.team()
    hook = await register(team, verify=True, is_active=False)

    enabled = made(await team.post(f"/webhooks/{hook['id']}/enable"))

    assert enabled["status"] == "pending_verification"
    assert await states(scene, hook) == [("webhook.test", "pending", None)]
    assert delivery_queues.test_queue((await stored(scene, hook)).id) in rung(scene)


async def test_deleted_endpoint_is_sent_no_test_either(scene: Scene):
    team = await scene.team()
    hook = await register(team, verify=True)

    made(await team.send("DELETE", f"/webhooks/{hook['id']}"))

    assert await states(scene, hook) == [("webhook.test", "discarded", "the endpoint was deleted")]


async def test_url_that_changes_all_the_time_is_sent_ten_tests_a_minute(scene: Scene):
    team = await scene.team()
    hook = await register(team, verify=True)
    for n in range(11):
        assert (await change(team, hook, url=f"{URL}/{n}"))["status"] == "pending_verification"

    assert len(await states(scene, hook)) == 10


async def test_repeat_with_an_idempotency_key_acts_once(scene: Scene):
    team = await scene.team()
    hook = await register(team, verify=True)
    for _ in range(2):
        made(await team.post(f"/webhooks/{hook['id']}/enable", Idempotency_Key="once"))

    assert len(await states(scene, hook)) == 2


async def test_admins_deeds_are_audited_without_secrets(scene: Scene):
    admin, team = await person(scene, "admin"), await scene.team()
    body = {"team_id": team.id, "webhook_url": URL, "auth_header": "Bearer hidden", "headers": {"X-A": "hidden"}}
    hook = made(await admin.send("POST", "/webhooks", body))
    path = f"/webhooks/{hook['id']}"
    made(await admin.send("PATCH", path, {"auth_header": "Bearer hidden", "description": "d"}))
    made(await admin.send("POST", f"{path}/disable"))
    made(await admin.send("POST", f"{path}/enable"))
    made(await admin.send("DELETE", path))
    made(await team.get("/webhooks"))

    lines = await scene.rows(
        "select action, user_id, details::text from audit_log where resource_id = :id order by created_at, id",
        id=hook["id"],
    )
    assert [line.action for line in lines] == [
        "created_webhook", "updated_webhook", "disabled_webhook", "enabled_webhook", "deleted_webhook",
    ]  # fmt: skip
    assert {line.user_id for line in lines} == {admin.id}
    assert "hidden" not in " ".join(line.details for line in lines)
