"""POST /webhooks/register and POST /webhooks: who may, what is refused, what is shown and what is sealed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import insert, select, text

from api.app import create_app
from api.routes.webhooks import register_webhook
from shared import clock, ids, key_secrets, keys, tables, webhook_endpoints
from shared.runtime import Runtime
from shared.signing import secret_bytes
from tests.shared.webhook_rows import Rows

ROUTES = [("POST", "/webhooks/register", register_webhook), ("POST", "/webhooks", register_webhook)]
URL = "http://127.0.0.1:9999/hook"


class Team:
    """A team's client; `post` registers with defaults that any field given replaces."""

    def __init__(self, http: httpx.AsyncClient, rows: Rows, key: str) -> None:
        self.http, self.rows, self.key = http, rows, key

    async def post(
        self, *, path: str = "/api/webhooks/register", auth: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        body = {"team_id": self.rows.team_id, "webhook_url": URL, **fields}
        return await self.http.post(path, json=body, headers=auth or {"Authorization": f"Bearer {self.key}"})

    async def stored(self) -> list[Any]:
        table = tables.webhook_endpoints
        async with self.rows.rt.db.statement() as tx:
            return list(await tx.execute(select(table).where(table.c.team_id == self.rows.team_id)))

    async def deliveries(self) -> list[Any]:
        table = tables.deliveries
        async with self.rows.rt.db.statement() as tx:
            return list(await tx.execute(select(table).where(table.c.team_id == self.rows.team_id)))


@pytest.fixture
async def team(runtime: Runtime) -> AsyncIterator[Team]:
    rows = Rows(runtime)
    await rows.create_team()
    key = key_secrets.new_virtual_key()
    async with runtime.db.transaction() as tx:
        await keys.create(tx, rows.team_id, hash_=key_secrets.key_hash(key), hint="sk-...")
    transport = httpx.ASGITransport(app=create_app(runtime, api=ROUTES))
    async with httpx.AsyncClient(transport=transport, base_url="http://waybill") as http:
        yield Team(http, rows, key)


@pytest.mark.parametrize("path", ["/api/webhooks/register", "/api/webhooks", "/api/v1/webhooks/register"])
async def test_endpoint_is_registered_with_a_secret_shown_once(team: Team, path: str):
    answer = await team.post(path=path)
    shown = answer.json()
    (stored,) = await team.stored()

    assert answer.status_code == 200
    assert shown["webhook_id"] == shown["id"] == ids.prefixed("whe", stored.id)
    assert shown["webhook_url"] == shown["url"] == URL
    assert shown["events"] == ["job.completed", "job.failed"]
    assert (shown["is_active"], shown["status"], shown["disabled_reason"]) == (True, "active", None)
    assert (shown["signing"], shown["last_triggered_at"], shown["team_id"]) == ("v1", None, team.rows.team_id)
    assert shown["created_at"].endswith("Z")
    assert len(secret_bytes(shown["secret"])) == 32
    opened = team.rows.rt.sealer.open(stored.secret_sealed, purpose=f"webhook_endpoints.secret:{stored.id}")
    assert opened == shown["secret"]


async def test_authorization_and_headers_are_sealed_and_not_shown(team: Team):
    answer = await team.post(
        auth_header="Bearer hidden-1", headers={"X-Env": "hidden-2"}, description="ours", is_active=False
    )
    (stored,) = await team.stored()
    open_ = team.rows.rt.sealer.open

    assert "hidden" not in answer.text
    assert answer.json()["has_auth_header"] is True
    assert answer.json()["header_names"] == ["X-Env"]
    assert (answer.json()["status"], answer.json()["disabled_reason"]) == ("disabled", "manual")
    assert open_(stored.auth_header_sealed, purpose=f"webhook_endpoints.auth_header:{stored.id}") == "Bearer hidden-1"
    assert orjson.loads(open_(stored.headers_sealed, purpose=f"webhook_endpoints.headers:{stored.id}")) == {
        "X-Env": "hidden-2"
    }


async def test_admin_registers_for_a_team(team: Team):
    admin = {"X-Admin-Key": team.rows.rt.settings.admin_key.get_secret_value()}

    assert (await team.post(auth=admin)).status_code == 200
    answer = await team.post(auth=admin, team_id="nobody")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Team 'nobody' not found"})


async def test_other_teams_are_out_of_reach(team: Team):
    answer = await team.post(team_id="other")

    assert (answer.status_code, answer.json()) == (403, {"detail": "API key does not belong to team 'other'"})
    assert (await team.post(auth={"X-None": "1"})).status_code == 401


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://10.0.0.1/", "private address"),
        ("https://[::ffff:a9fe:a9fe]/", "metadata address"),
        ("https://user:pw@8.8.8.8/", "user info is not allowed"),
        ("ftp://8.8.8.8/", "scheme must be https or http"),
        ("https://8.8.8.8:22/", "port must be 443, 80 or 1024-65535"),
        ("https://8.8.8.8/" + "a" * 2000, "longer than 2,000 characters"),
    ],
)
async def test_url_that_is_not_allowed(team: Team, url: str, reason: str):
    answer = await team.post(webhook_url=url)

    assert (answer.status_code, answer.json()) == (400, {"detail": f"webhook_url is not allowed: {reason}"})
    assert await team.stored() == []


async def test_url_may_be_called_url_and_must_be_there(team: Team):
    headers = {"Authorization": f"Bearer {team.key}"}
    body = {"team_id": team.rows.team_id}
    named = await team.http.post("/api/webhooks", json={**body, "url": URL}, headers=headers)
    missing = await team.http.post("/api/webhooks", json=body, headers=headers)

    assert named.json()["webhook_url"] == URL
    assert missing.status_code == 422
    assert missing.json()["detail"] == [
        {"loc": ["body", "webhook_url"], "msg": "field required", "type": "value_error.missing"}
    ]


@pytest.mark.parametrize("event", ["zzz", "job", "job.complete", "jobs.*", "job*", "webhook.test"])
async def test_unknown_event_type(team: Team, event: str):
    answer = await team.post(events=["job.completed", event])

    assert (answer.status_code, answer.json()) == (400, {"detail": f"Unknown event type: {event}"})


async def test_globs_are_event_types(team: Team):
    events = ["*", "job.*", "webhook.endpoint.*", "credits.low"]

    assert (await team.post(events=[*events, "job.*"])).json()["events"] == events


async def test_every_field_is_kept_and_shown(team: Team):
    wanted: dict[str, Any] = {
        "payload": "full",
        "metadata": {"env": "test"},
        "timeout_s": 5,
        "retry_schedule_s": [0, 1, 86_400],
        "max_rate_per_s": 0.1,
        "max_concurrency": 50,
        "description": "ours",
        "events": ["job.*", "job.progress", "webhook.delivery.exhausted"],
    }
    shown = (await team.post(**wanted)).json()
    (stored,) = await team.stored()

    assert {name: shown[name] for name in wanted} == wanted
    assert {name: getattr(stored, name) for name in wanted} == wanted
    assert (shown["ordered"], shown["verify"], shown["circuit"], shown["public_key"]) == (False, False, "closed", None)


async def test_what_is_left_out_shows_what_is_in_effect(team: Team):
    shown = (await team.post(timeout_s=None, retry_schedule_s=None, max_concurrency=None, metadata=None)).json()
    (stored,) = await team.stored()
    settings = team.rows.rt.settings

    assert shown["timeout_s"] == settings.webhook_timeout_s
    assert shown["retry_schedule_s"] == list(settings.webhook_retry_schedule_s)
    assert (shown["max_rate_per_s"], shown["max_concurrency"], shown["metadata"]) == (None, 5, {})
    assert (stored.timeout_s, stored.retry_schedule_s) == (None, None)


@pytest.mark.parametrize("signing", ["v1a", "both"])
async def test_endpoint_with_public_signatures_shows_its_public_key(team: Team, signing: str):
    shown = (await team.post(signing=signing)).json()

    assert shown["signing"] == signing
    assert shown["public_key"].startswith("whpk_")


async def test_endpoint_to_be_verified_waits_for_its_test(team: Team):
    shown = (await team.post(verify=True)).json()
    (stored,) = await team.stored()
    (sample,) = await team.deliveries()

    assert (shown["status"], shown["is_active"], shown["verify"]) == ("pending_verification", False, True)
    assert (sample.endpoint_id, sample.trigger, sample.event_type) == (stored.id, "test", "webhook.test")
    body = orjson.loads(sample.body)
    assert (body["id"], body["type"]) == (ids.prefixed("evt", sample.event_id), "webhook.test")
    assert (body["team_id"], body["data"]["id"]) == (team.rows.team_id, shown["id"])


async def test_endpoint_registered_as_disabled_is_sent_no_test(team: Team):
    shown = (await team.post(verify=True, is_active=False)).json()

    assert shown["status"] == "disabled"
    assert await team.deliveries() == []


async def test_strict_order_is_not_supported_yet(team: Team):
    answer = await team.post(ordered=True)

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "ordered"]
    assert answer.json()["detail"][0]["msg"] == "not supported yet"
    assert await team.stored() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("events", []), ("events", ["job.completed"] * 51), ("signing", "v2"), ("auth_header", "a\r\nX: y"),
        ("auth_header", "a" * 501), ("headers", {"Host": "x"}), ("headers", {"Webhook-Id": "x"}),
        ("headers", {"waybill-x": "x"}), ("headers", {"Content-Length": "1"}), ("headers", {"authorization": "x"}),
        ("headers", {"Transfer-Encoding": "x"}), ("headers", {"Connection": "x"}),
        ("headers", {"User-Agent": "x"}), ("headers", {"accept-encoding": "x"}), ("headers", {"X Y": "x"}),
        ("headers", {"X-Y": "a\nb"}), ("headers", {"X-Y": "ä"}), ("headers", {"x-y": "1", "X-Y": "2"}),
        ("headers", {f"x-{n}": "1" for n in range(11)}), ("description", "a" * 501), ("webhook_url", 5),
        ("timeout_s", 0.9), ("timeout_s", 31), ("retry_schedule_s", []), ("retry_schedule_s", [1] * 21),
        ("retry_schedule_s", [86_401]), ("retry_schedule_s", [-1]), ("retry_schedule_s", [86_400] * 8),
        ("max_rate_per_s", 0.05), ("max_rate_per_s", 1001), ("max_concurrency", 0), ("max_concurrency", 51),
        ("metadata", {"a": "x" * 2048}), ("metadata", []), ("payload", "big"), ("verify", None),
    ],
)  # fmt: skip
async def test_invalid_field(team: Team, field: str, value: object):
    answer = await team.post(**{field: value})

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", field]


async def test_fifty_endpoints_are_enough(team: Team):
    async with team.rows.rt.db.transaction() as tx:
        await tx.execute(
            insert(tables.webhook_endpoints),
            [{"id": ids.new(), "team_id": team.rows.team_id, "url": URL, "secret_sealed": b""} for _ in range(49)],
        )
    assert (await team.post()).status_code == 200
    answer = await team.post()

    assert (answer.status_code, answer.json()) == (400, {"detail": "Too many webhooks"})


async def test_plain_http_and_loopback_are_refused_in_production(runtime: Runtime, team: Team):
    production = replace(
        runtime, settings=runtime.settings.model_copy(update={"webhook_allow_http": False, "webhook_allow_nets": ()})
    )
    transport = httpx.ASGITransport(app=create_app(production, api=ROUTES))
    async with httpx.AsyncClient(transport=transport, base_url="http://waybill") as http:
        strict = Team(http, team.rows, team.key)
        plain = await strict.post(webhook_url=URL)
        loopback = await strict.post(webhook_url="https://127.0.0.1/")

    assert plain.json() == {"detail": "webhook_url is not allowed: scheme must be https"}
    assert loopback.json() == {"detail": "webhook_url is not allowed: loopback address"}


async def test_deleted_endpoints_leave_room_for_others(team: Team):
    async with team.rows.rt.db.transaction() as tx:
        gone = {"team_id": team.rows.team_id, "url": URL, "secret_sealed": b"", "status": "disabled"}
        await tx.execute(
            insert(tables.webhook_endpoints),
            [{"id": ids.new(), **gone, "deleted_at": clock.now()} for _ in range(50)],
        )

    assert (await team.post()).status_code == 200


async def test_endpoint_that_another_request_is_storing_counts(team: Team):
    stored = {"team_id": team.rows.team_id, "url": URL, "secret_sealed": b""}
    async with team.rows.rt.db.transaction() as tx:
        await tx.execute(insert(tables.webhook_endpoints), [{"id": ids.new(), **stored} for _ in range(49)])
    async with team.rows.rt.db.transaction() as tx:
        await webhook_endpoints.lock_team(tx, team.rows.team_id)
        await tx.execute(insert(tables.webhook_endpoints).values(id=ids.new(), **stored))
        second = asyncio.create_task(team.post())
        await waits_for_a_lock(team, second)

    assert (await second).json() == {"detail": "Too many webhooks"}
    assert len(await team.stored()) == 50


async def waits_for_a_lock(team: Team, request: asyncio.Task[httpx.Response]) -> None:
    """Return when the request waits in Postgres, or is answered although it should wait."""
    waiting = text(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    )
    async with asyncio.timeout(10), team.rows.rt.db.statement() as tx:
        while not request.done() and not await tx.scalar(waiting):  # noqa: ASYNC110 - Postgres tells nobody who waits
            await asyncio.sleep(0.01)
