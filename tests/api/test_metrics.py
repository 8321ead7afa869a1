"""/metrics: numbers from rows, who may read them, what is in no label, and an answer whatever is down."""

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from dramatiq.brokers.redis import RedisBroker
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics
from pydantic import SecretStr
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.metrics import Requests
from api.readings import Part, Readings
from api.request_id import RequestId
from shared import ids, redis_keys
from shared.db import hot
from shared.messages import RunCalls
from shared.queue import connect, encode
from tests.api.admin import made, refusal, unique
from tests.api.another_api import NO_POSTGRES, NO_REDIS, served
from tests.api.batch_requests import batch_of, run, tended
from tests.api.scraping import PATH, Series, grown, read_anew, scraped, series_of
from tests.scene import COST_NANOUSD, HELLO, Scene, Team, refused
from tests.shared.webhook_rows import Rows

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-one-who-scrapes"
PARTS = ("queues", "work", "webhooks", "usage")


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """Of this module: everything is counted over all teams."""
    return module_database_url


def told(model: str) -> dict[str, str]:
    return {"model": model, "provider": "openai"}


async def test_the_page_is_what_prometheus_reads(scene: Scene):
    page = await scraped(scene.client)
    assert (page.of("waybill_database_up"), page.of("waybill_redis_up")) == (1, 1)
    assert page.all("waybill_scrape_ok") == {(part,): 1 for part in PARTS}
    assert {"process_resident_memory_bytes", "python_info", "waybill_info", "waybill_queue_age_seconds"} <= page.names


async def test_it_speaks_open_metrics_to_who_asks_for_it(scene: Scene):
    answer = await scene.client.get(PATH, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(openmetrics.text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families) > 30
    await scraped(scene.client, Accept="application/openmetrics-text; version=none")


async def test_a_job_moves_the_numbers_and_they_only_grow(scene: Scene):
    scene.live = False
    team = await scene.team()
    [model] = team.models
    before = await read_anew(scene)
    calls = [{"messages": HELLO}] * 2
    job = await team.job(calls=calls, auto_complete=True)
    waiting = await read_anew(scene)
    assert grown(before, waiting, "waybill_unfinished_calls", kind="call", state="waiting") == 2

    scene.provider.held.clear()
    [call_id, _] = [
        row.id for row in await scene.rows("select id from calls where job_id = :id", id=UUID(job["job_id"]))
    ]
    scene.start(scene.work([call_id]))
    await scene.provider.until_asked(1)
    running = await read_anew(scene)
    assert grown(waiting, running, "waybill_unfinished_calls", kind="call", state="waiting") == -1
    assert grown(before, running, "waybill_unfinished_calls", kind="call", state="running") == 1

    scene.provider.held.set()
    await asyncio.gather(*scene.tasks)
    assert (await team.post(f"/jobs/{job['job_id']}/cancel")).status_code == 200
    after = await read_anew(scene)
    for name, by in {"waybill_calls_total": {"provider": "openai"}, "waybill_model_calls_total": told(model)}.items():
        assert grown(before, after, name, outcome="completed", **by) == 1
    assert grown(before, after, "waybill_calls_total", provider="none", outcome="cancelled") == 1
    assert grown(before, after, "waybill_model_tokens_total", kind="prompt", **told(model)) == 200
    assert grown(before, after, "waybill_tokens_total", kind="completion", provider="openai") == 250
    assert grown(before, after, "waybill_call_latency_seconds_count", provider="openai") == 1
    for name in ("waybill_client_cost_usd_total", "waybill_provider_cost_usd_total"):
        assert grown(before, after, name, provider="openai") == pytest.approx(COST_NANOUSD / 1e9)
    assert grown(before, after, "waybill_jobs_total", outcome="cancelled") == 1
    assert grown(before, after, "waybill_credits_charged_total") == sum(map(abs, await team.deductions()))
    for page, later in ((before, waiting), (waiting, running), (running, after)):
        fallen = [
            of for of, value in page.items() if of[0].endswith(("_total", "_count", "_sum")) and later[of] < value
        ]
        assert fallen == []


async def test_a_call_that_is_sent_twice_counts_as_two_attempts(scene: Scene):
    scene.live = False
    team = await scene.team()
    scene.provider.steps = [refused()]
    await scene.work_on(await team.call((await team.job())["job_id"]))
    mean = await scene.row("select count(*)::float8 / count(distinct call_id) as mean from attempts")
    assert (await read_anew(scene)).of("waybill_attempts_per_call") == mean.mean > 1


async def test_lines_of_batches_are_told_apart_from_live_calls(scene: Scene):
    team = await scene.team()
    before = await read_anew(scene)
    async with tended(scene):
        batch = await batch_of(team, "a", "b", "c")
        await run(team, batch, "a")
        scene.provider.held.clear()
        scene.start(run(team, batch, "b"))
        await scene.provider.until_asked(2)
        during = await read_anew(scene)
        scene.provider.held.set()
        await run(team, batch, "c")
    states = {
        (kind, state): grown(before, during, "waybill_unfinished_calls", kind=kind, state=state)
        for kind in ("call", "line")
        for state in ("waiting", "running")
    }
    assert states == {("call", "waiting"): 0, ("call", "running"): 0, ("line", "waiting"): 1, ("line", "running"): 1}
    assert grown(before, during, "waybill_unfinished_batches", status="in_progress") == 1


async def test_messages_in_the_queues_are_counted(scene: Scene):
    client = connect(scene.rt.settings.redis_url)
    broker = RedisBroker(client=client, middleware=[], namespace=redis_keys.DRAMATIQ_NAMESPACE)
    for _ in range(3):
        broker.enqueue(encode(RunCalls(ids=(ids.new(),))))
    client.lpop(redis_keys.queue(RunCalls.queue))
    broker.close()
    lengths = (await read_anew(scene)).all("waybill_queue_messages")
    assert {of: count for of, count in lengths.items() if count} == {("calls", "waiting"): 2, ("calls", "taken"): 1}
    assert {queue for queue, _ in lengths} == {"calls", "calls_batch", "batches", "webhooks"}


async def test_webhooks_are_told_as_operators_see_them(scene: Scene):
    rows = Rows(scene.rt)
    await rows.create_team()
    endpoint, failing = await rows.endpoint(), await rows.endpoint()
    await scene.rows("update webhook_endpoints set failing_since = now() where id = :id returning id", id=failing)
    await scene.rows(
        """insert into deliveries (id, event_id, event_type, team_id, queue_id, endpoint_id, created_at)
           values (:id, uuid7(), 'job.completed', :team, :endpoint, :endpoint, app_now() - interval '30 days')
           returning id""",
        id=ids.new(), team=rows.team_id, endpoint=endpoint,
    )  # fmt: skip
    found, shown = await read_anew(scene), made(await scene.api.get("/webhooks/health"))
    assert found.of("waybill_webhook_oldest_waiting_age_seconds") == pytest.approx(30 * 86_400, abs=60)
    assert found.of("waybill_webhook_deliveries_waiting") == shown["waiting"] > 0
    assert found.of("waybill_webhook_failing_endpoints") == shown["endpoints"].pop("failing") == 1
    assert found.all("waybill_webhook_endpoints") == {(status,): n for status, n in shown["endpoints"].items()}
    assert found.all("waybill_webhook_deliveries_last_day") == {(state,): n for state, n in shown["deliveries"].items()}
    assert found.all("waybill_webhook_disabled_endpoints") == {
        (why,): n for why, n in shown["disabled_by_reason"].items()
    }


async def test_requests_are_counted_by_route_and_what_a_client_makes_up_is_one(scene: Scene):
    team = await scene.team()
    for path in (f"/{team.key}", "/nothing", "/api/nothing", f"/api/jobs/{uuid4()}"):
        await scene.client.get(path, headers={"Authorization": f"Bearer {team.key}"})
    for method in ("BREW", "PROPFIND"):
        await scene.client.request(method, "/nothing")
    page = await scraped(scene.client)
    count = "waybill_http_requests_total"
    assert page.of(count, method="GET", route="none", status="404") == 3
    assert page.of(count, method="other", route="none", status="404") == 2
    assert page.of(count, method="GET", route="/api/jobs/{job_id}", status="404") == 1
    assert page.of("waybill_http_request_duration_seconds_count", method="GET", route="/api/jobs/{job_id}") == 1
    assert page.of("waybill_http_requests_in_progress") == 1
    assert {value for name, value in page.labels if name == "method"} <= {"GET", "POST", "other"}


async def test_no_label_names_a_team_a_key_or_what_a_client_wrote(scene: Scene):
    team = await scene.team()
    [model] = team.models
    asked = unique("own-name")
    key = made(await scene.client.post(
        "/key/generate", json={"team_id": team.id, "aliases": {asked: model}, "user_id": "some-user"},
        headers=scene.api.admin,
    ))  # fmt: skip
    own = Team(scene=scene, id=team.id, key=key["key"], models=(asked,))
    before = await scraped(scene.client)
    job = await own.job(job_type="some-type", user_id="some-user", calls=[{"messages": HELLO, "model": asked}])
    await own.get(f"/jobs/{job['job_id']}?wait=10")
    async with served(scene) as client:
        page = await scraped(client)
    assert grown(before, page, "waybill_calls_total", provider="openai", outcome="completed") == 1
    written = " ".join(sorted(value for _, value in page.labels))
    for secret in (team.id, key["key"], key["token"], asked, job["job_id"], "some-type", "some-user"):
        assert secret not in written


async def test_a_deleted_model_leaves_the_page_and_the_sums_keep_its_calls(scene: Scene):
    scene.live = False
    team = await scene.team()
    [model] = team.models
    await scene.work_on(await team.call((await team.job())["job_id"]))
    before = await read_anew(scene)
    assert before.of("waybill_model_calls_total", outcome="completed", **told(model)) == 1
    gone = await scene.api.send("DELETE", f"/models/{model}")
    assert gone.status_code in {200, 204}, gone.text
    after = await read_anew(scene)
    assert model not in {value for _, value in after.labels}
    assert after.all("waybill_calls_total") == before.all("waybill_calls_total")


@pytest.mark.parametrize("shown", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer"])
async def test_with_a_token_set_nobody_reads_without_it(scene: Scene, shown: str | None):
    async with served(scene, metrics_token=SecretStr(TOKEN)) as client:
        answer = await client.get(PATH, headers={} if shown is None else {"Authorization": shown})
        assert refusal(answer) == (401, "Invalid metrics token")
        assert answer.headers["www-authenticate"] == "Bearer"
        await scraped(client, Authorization=f"Bearer {TOKEN}")


async def test_with_postgres_down_the_rest_is_there(scene: Scene):
    async with served(scene, database_url=NO_POSTGRES) as client:
        page = await scraped(client)
    assert (page.of("waybill_database_up"), page.of("waybill_redis_up")) == (0, 1)
    assert page.all("waybill_scrape_ok") == {("queues",): 1, ("work",): 0, ("webhooks",): 0, ("usage",): 0}
    assert "waybill_queue_messages" in page.names
    assert not {"waybill_unfinished_calls", "waybill_calls_total", "waybill_webhook_circuits"} & page.names


async def test_with_redis_down_the_rest_is_there(scene: Scene):
    async with served(scene, redis_url=NO_REDIS) as client:
        page = await scraped(client)
    assert (page.of("waybill_database_up"), page.of("waybill_redis_up")) == (1, 0)
    assert page.all("waybill_scrape_ok") == {("queues",): 0, ("work",): 1, ("webhooks",): 1, ("usage",): 1}
    assert "waybill_queue_messages" not in page.names


async def test_what_takes_too_long_is_left_out_and_there_for_the_next_scrape(scene: Scene):
    readings = Readings(scene.rt, answer_s=1, usage_s=0)
    before = series_of(await readings.now())
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "lock table usage_daily in access exclusive mode")
        during = series_of(await readings.now())
    after = series_of(await readings.now())
    await readings.close()
    assert (during.of("waybill_database_up"), during.of("waybill_scrape_ok", part="usage")) == (1, 0)
    assert "waybill_jobs_total" not in during.names
    assert before.of("waybill_scrape_ok", part="usage") == after.of("waybill_scrape_ok", part="usage") == 1
    assert "waybill_jobs_total" in after.names


async def test_a_part_is_read_once_for_all_who_ask_and_kept_for_a_while():
    reads: list[int] = []

    async def read() -> list[Any]:
        reads.append(1)
        await asyncio.sleep(0)
        return []

    part = Part("some", read)
    tasks = {part.begin() for _ in range(3)}
    assert (len(tasks), part.found) == (1, None)
    await asyncio.wait({task for task in tasks if task is not None})
    assert (part.begin(), part.found, len(reads)) == (None, [], 1)


async def test_a_part_that_fails_is_neither_shown_nor_asked_again_at_once():
    async def read() -> list[Any]:
        raise ConnectionError

    part = Part("some", read)
    task = part.begin()
    assert task is not None
    await task
    assert (part.begin(), part.found) == (None, None)


async def test_an_answer_that_is_sent_as_it_comes_is_an_open_stream_until_it_ends():
    registry = CollectorRegistry()
    requests = Requests(registry)
    open_ones: list[dict[tuple[str, ...], float]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def told() -> Any:
            open_ones.append(now().all("waybill_open_streams"))
            yield "data: x\n\n"

        await StreamingResponse(told(), media_type="text/event-stream")(scope, receive, send)

    def now() -> Series:
        return series_of(registry.collect())

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()

    async def send(_: Message) -> None:
        await asyncio.sleep(0)

    scope: Scope = {"type": "http", "asgi": {"version": "3.0"}, "method": "GET", "path": "/", "headers": []}
    await RequestId(app, requests=requests)(scope, receive, send)
    assert (open_ones, now().all("waybill_open_streams")) == ([{("none",): 1}], {("none",): 0})


async def test_the_documents_name_every_metric_and_no_other(scene: Scene):
    scene.live = False
    team = await scene.team()
    await scene.work_on(await team.call((await team.job())["job_id"]))
    async with served(scene) as client:
        answer: httpx.Response = await client.get(PATH)
    suffix = re.compile(r"_(bucket|count|sum)$")
    there = set(re.findall(r"^# TYPE (waybill_\w+)", answer.text, re.MULTILINE))
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    said = {suffix.sub("", name) for name in re.findall(r"\bwaybill_\w+", text)}
    assert said == there
