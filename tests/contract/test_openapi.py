"""/openapi.json is valid, complete, and says who may call what as the code does."""

import re
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate

from api import app, openapi_gateway
from api.openapi import document
from api.openapi_responses import REFUSALS
from api.openapi_samples import sample
from api.wire.batches import BatchOut, DryRunOut
from api.wire.events import EVENTS
from shared import event_types
from shared.line_checks import LineChecks
from shared.states import Endpoint
from tests.api.conform import found_wrong
from tests.contract.routes import NOBODY, ROUTES, filled, named, opened_by, refusal
from tests.scene import HELLO, Scene, refused

REQUEST_ID = {"x-request-id": "r"}
BODY_FREE = (204, 304)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return document(app.TABLES)


def operations(whole: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, said) for path, item in whole["paths"].items() for method, said in item.items()]


def test_the_document_is_valid(whole: dict[str, Any]):
    assert whole["openapi"].startswith("3.1.")
    validate(whole)


async def test_it_is_served_once_and_then_known_by_its_tag(scene: Scene, whole: dict[str, Any]):
    served = await scene.client.get("/openapi.json")
    assert orjson.loads(served.content) == orjson.loads(orjson.dumps(whole))
    again = await scene.client.get("/openapi.json", headers={"If-None-Match": served.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", served.headers["etag"])


def test_every_route_is_in_it_and_nothing_else(whole: dict[str, Any]):
    tables = {
        (method, prefix + re.sub(r":\w+}", "}", path)) for prefix, table in app.TABLES for method, path, _ in table
    }
    assert {(method.upper(), path) for method, path, _ in operations(whole)} == tables
    assert not [path for path in whole["paths"] if path.startswith("/api/v1")]


def test_operation_ids_are_unique_and_come_from_the_wire(whole: dict[str, Any]):
    ids = [said["operationId"] for _, _, said in operations(whole)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+_[A-Za-z0-9_]+", id_) for id_ in ids)
    assert whole["paths"]["/api/jobs/{job_id}"]["get"]["operationId"] == "get_jobs_by_job_id"


def test_no_two_paths_differ_in_the_name_of_a_parameter_only(whole: dict[str, Any]):
    shapes = [re.sub(r"{\w+}", "{}", path) for path in whole["paths"]]
    assert sorted(shapes) == sorted(set(shapes))


def test_other_paths_of_a_route_say_which_one_they_are(whole: dict[str, Any]):
    assert "Same as `POST /api/webhooks/register`" in whole["paths"]["/api/webhooks"]["post"]["description"]
    assert "Same as" not in whole["paths"]["/api/webhooks/register"]["post"]["description"]


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_every_route_says_what_it_answers(route: Any):
    untyped = [status for status, answer in route.given.answers.items() if answer is None and status not in BODY_FREE]
    assert untyped == []


def test_every_operation_is_tagged_described_and_secured(whole: dict[str, Any]):
    tags = {tag["name"] for tag in whole["tags"]}
    schemes = set(whole["components"]["securitySchemes"])
    for method, path, said in operations(whole):
        assert said["summary"], path
        assert set(said["tags"]) <= tags, f"api/openapi.py TAGS lacks the tag of {path}"
        assert {name for way in said["security"] for name in way} <= schemes
        keyed = "Idempotency-Key" in {parameter["name"] for parameter in said["parameters"]}
        assert keyed <= (method == "post"), path


def test_posts_that_change_something_take_an_idempotency_key():
    assert [named(route) for route in ROUTES if route.method == "POST" and not route.takes_key] == [
        named(route) for route in ROUTES if route.method == "POST" and route.given.access == "none"
    ]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body is not None], ids=named)
def test_the_body_that_try_it_out_starts_with_is_taken(route: Any):
    route.body.model_validate(sample(route))


def test_examples_of_batches_are_what_is_taken_and_answered(whole: dict[str, Any]):
    sent = whole["paths"]["/v1/batches"]["post"]["requestBody"]["content"]["application/x-ndjson"]["example"]
    checks = LineChecks(Endpoint.CHAT, longest=1000)
    assert [checks.line(n, line.encode()).custom_id for n, line in enumerate(sent.splitlines())] == ["fr", "it"]
    for model in (BatchOut, DryRunOut):
        [example] = whole["components"]["schemas"][model.__name__]["examples"]
        model.model_validate(example, strict=True)


def test_every_type_is_a_webhook_with_an_example_of_its_schema(whole: dict[str, Any]):
    assert set(whole["webhooks"]) == set(EVENTS) == {*event_types.ALL, event_types.TEST}
    for type_, item in whole["webhooks"].items():
        assert item["post"]["description"].startswith(item["post"]["summary"])
        content = item["post"]["requestBody"]["content"]["application/json"]
        assert content["example"]["type"] == type_
        EVENTS[type_].model_validate_json(orjson.dumps(content["example"]), strict=True)


def test_queries_of_the_log_and_of_deliveries_say_what_they_mean(whole: dict[str, Any]):
    routes = [(path, said) for _, path, said in operations(whole) if "/webhooks" in path or "/events" in path]
    queries = {(path, p["name"]): p for path, said in routes for p in said["parameters"] if p["in"] == "query"}
    assert [place for place, parameter in queries.items() if not parameter.get("description")] == []
    assert queries["/api/events", "event_type"]["description"] == "Another name of `types`."
    assert len(queries) > 40
    held = {path: str(said["parameters"]) for path, said in routes}
    assert "(0..600)" in held["/api/events"]


def test_callbacks_name_the_events_that_they_may_carry(whole: dict[str, Any]):
    for path, of_job in (("/api/jobs/create", True), ("/api/jobs/{job_id}/llm-call", False)):
        (event,) = whole["paths"][path]["post"]["callbacks"].values()
        (said,) = event.values()
        names = {ref["$ref"] for ref in said["post"]["requestBody"]["content"]["application/json"]["schema"]["oneOf"]}
        assert "#/components/schemas/CallFailedEvent" in names
        assert ("#/components/schemas/JobFailedEvent" in names) == of_job


async def test_the_events_of_a_job_are_as_the_document_says(scene: Scene):
    team = await scene.team()
    cancelled = await team.job(calls=[{"messages": HELLO}])
    await team.post(f"/jobs/{cancelled['job_id']}/cancel")
    scene.live = True
    job = await team.job(metadata={"k": "v"})
    scene.provider.steps = [refused(again="never")]
    await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO})
    await team.post(f"/jobs/{job['job_id']}/llm-call", {"messages": HELLO})
    await team.complete(job["job_id"])
    rows = await scene.rows("select type, body from events where team_id = :team", team=team.id)
    for row in rows:
        EVENTS[row.type].model_validate_json(row.body, strict=True)
    assert {row.type for row in rows} == {
        "job.created", "job.started", "job.completed", "job.cancelled",
        "call.completed", "call.failed", "call.cancelled",
    }  # fmt: skip


async def test_who_is_nobody_is_let_in_where_the_document_says_so_only(scene: Scene):
    for route in ROUTES:
        answer = await scene.client.request(route.method, filled(route, {}), json={})
        if route.given.access != "none":
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), named(route)
            assert refusal(route, answer)[0] == 401
        elif route.body is None:
            assert answer.status_code in {200, 404} or route.path == "/olla/litellm/health", named(route)


async def test_a_team_is_refused_on_every_admin_route(scene: Scene):
    headers = {"Authorization": f"Bearer {(await scene.api.team())['virtual_key']}"}
    for route in opened_by("admin:r", "admin:w", "owner", "session"):
        answer = await scene.client.request(route.method, filled(route, {}), json={}, headers=headers)
        assert refusal(route, answer) == (403, "Admin access required"), named(route)


async def test_an_admin_is_refused_on_every_route_of_teams(scene: Scene):
    for route in opened_by("team"):
        answer = await scene.client.request(route.method, filled(route, {}), json={}, headers=scene.api.admin)
        assert refusal(route, answer) == (403, "This endpoint needs a team virtual key"), named(route)


async def test_the_admin_key_is_no_session(scene: Scene):
    for route in opened_by("session"):
        answer = await scene.client.request(route.method, filled(route, {}), json={}, headers=scene.api.admin)
        told = (answer.status_code, answer.json())
        assert told == (403, {"detail": "This endpoint needs an admin user's session"}), named(route)


@pytest.mark.parametrize(
    ("path", "status", "headers", "body", "problem"),
    [
        (f"/api/jobs/{NOBODY}", 418, REQUEST_ID, b"{}", "status is not in the document"),
        (f"/api/jobs/{NOBODY}", 404, {}, b'{"detail":"x"}', "lacks ['X-Request-ID']"),
        (f"/api/jobs/{NOBODY}", 404, REQUEST_ID, b'{"error":"x"}', "$: "),
        (f"/api/jobs/{NOBODY}", 404, {**REQUEST_ID, "content-type": "text/html"}, b"<p>", "is text/html"),
        ("/nothing", 200, REQUEST_ID, b"{}", "not in the document"),
        ("/health", 200, REQUEST_ID, b'{"status":"ill"}', "$"),
    ],
)
def test_what_the_hook_of_the_api_tests_finds(path: str, status: int, headers: Any, body: bytes, problem: str):
    found = found_wrong("GET", path, status, {"content-type": "application/json", **headers}, body)
    assert found is not None
    assert found.startswith(problem)


def test_every_refusal_has_a_text():
    said = {False: set(REFUSALS), True: set(openapi_gateway.REFUSALS)}
    assert [named(route) for route in ROUTES if not set(route.refusals) <= said[route.is_of_gateway]] == []
