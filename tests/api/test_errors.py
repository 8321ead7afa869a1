"""Every refusal has the contract's status, text and headers, and none is ever a 500."""

from typing import Any

import pytest

from tests.api.admin import refusal
from tests.scene import HELLO, Scene, Team

CALL = {"messages": HELLO}
UNKNOWN = "019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f"
NESTED = b'{"messages":[{"role":"user","content":"x"}],"metadata":' + b'{"a":' * 64 + b"1" + b"}" * 65


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=2)


@pytest.fixture
async def job_id(team: Team) -> str:
    found: str = (await team.job())["job_id"]
    return found


async def send_raw(team: Team, path: str, body: bytes, **headers: str):
    sent = {"Authorization": f"Bearer {team.key}", "Prefer": "respond-async", **headers}
    return await team.scene.client.post(f"/api{path}", content=body, headers=sent)


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (b"", {"loc": ["body"], "msg": "field required", "type": "value_error.missing"}),
        (b"{}", {"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}),
        (b'{"messages"', {"loc": ["body", 11], "msg": "JSON decode error", "type": "json_invalid"}),
        (b'{"temperature": NaN}', {"loc": ["body", 16], "msg": "JSON decode error", "type": "json_invalid"}),
        (b'{"temperature": Infinity}', {"loc": ["body", 16], "msg": "JSON decode error", "type": "json_invalid"}),
        (b'{"user": "\xff\xfe"}', {"loc": ["body", 0], "msg": "JSON decode error", "type": "json_invalid"}),
        (b'{"user": "\\ud800"}', {"msg": "JSON decode error", "type": "json_invalid"}),
        (b'{"user": "a\\u0000b"}', {"loc": ["body"], "msg": "NUL characters are not allowed"}),
        (b'{"a\\u0000b": 1}', {"loc": ["body"], "msg": "NUL characters are not allowed"}),
        (NESTED, {"loc": ["body"], "msg": "nesting is over 64 levels"}),
        (b"[" * 100_000, {"type": "json_invalid"}),
        (b"[]", {"loc": ["body"]}),
        (b"null", {"loc": ["body"]}),
        (b'"text"', {"loc": ["body"]}),
        (b'{"messages":[]}', {"loc": ["body", "messages"], "type": "too_short"}),
        (b'{"messages":[{}]}', {"loc": ["body", "messages", 0, "role"], "msg": "field required"}),
        (b'{"messages":[{"role":"user"}]}', {"loc": ["body", "messages", 0]}),
        (b'{"messages":[{"role":"user","content":7}]}', {"type": "string_type"}),
    ],
    ids=lambda value: value[:30].decode(errors="replace") if isinstance(value, bytes) else "",
)
async def test_a_body_that_is_no_call_is_422(team: Team, job_id: str, body: bytes, finding: dict[str, Any]):
    answer = await send_raw(team, f"/jobs/{job_id}/llm-call", body)
    assert answer.status_code == 422, answer.text
    found = answer.json()["detail"][0]
    assert {name: found[name] for name in finding} == finding
    assert set(found) == {"loc", "msg", "type"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1), ("temperature", "0.7"), ("temperature", True), ("max_tokens", 0), ("max_tokens", 1.5),
        ("top_p", 1.1), ("frequency_penalty", -2.1), ("presence_penalty", 3), ("n", 0), ("n", 17), ("top_logprobs", 21),
        ("stop", ["x"] * 17), ("stop", 7), ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("purpose", "x" * 201), ("deadline_s", 0), ("deadline_s", 604_801), ("call_metadata", []), ("metadata", "x"),
        ("tools", {}), ("seed", "1"), ("model", 7), ("messages", "Hello"), ("callback_url", "ftp://a.example/"),
    ],
)  # fmt: skip
async def test_a_wrong_value_is_named_and_never_echoed(team: Team, job_id: str, field: str, value: Any):
    answer = await team.submit(job_id, **{field: value})
    assert answer.status_code == 422, answer.text
    for found in answer.json()["detail"]:
        assert found["loc"][:2] == ["body", field]
        assert set(found) == {"loc", "msg", "type"}
    if isinstance(value, str) and len(value) > 3:
        assert value not in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", 10**15), ("seed", -(2**53)), ("temperature", 0), ("deadline_s", 604_800), ("purpose", "é" * 200)],
)
async def test_extreme_but_allowed_values_are_accepted(team: Team, job_id: str, field: str, value: Any):
    assert (await team.submit(job_id, **{field: value})).status_code == 202


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"job_type": "t"}, ["body", "team_id"]),
        ({"team_id": "t"}, ["body", "job_type"]),
        ({"team_id": "t", "job_type": ""}, ["body", "job_type"]),
        ({"team_id": "t", "job_type": "x" * 256}, ["body", "job_type"]),
        ({"team_id": "t", "job_type": "t", "priority": 101}, ["body", "priority"]),
        ({"team_id": "t", "job_type": "t", "user_id": "x" * 256}, ["body", "user_id"]),
        ({"team_id": "t", "job_type": "t", "metadata": []}, ["body", "metadata"]),
        ({"team_id": "t", "job_type": "t", "calls": []}, ["body", "calls"]),
        ({"team_id": "t", "job_type": "t", "calls": [CALL] * 1001}, ["body", "calls"]),
        ({"team_id": "t", "job_type": "t", "calls": [CALL, CALL, {}]}, ["body", "calls", 2, "messages"]),
        ({"team_id": "t", "job_type": "t", "deadline_s": 0.5}, ["body", "deadline_s"]),
    ],
)
async def test_a_job_that_does_not_validate(team: Team, body: dict[str, Any], loc: list[Any]):
    answer = await team.post("/jobs/create", body)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, loc)


async def test_metadata_over_its_limit_is_refused_when_made_and_when_merged(team: Team):
    big = {"k": "x" * 10_240}
    finding = {
        "loc": ["body", "metadata"],
        "msg": "metadata exceeds 10240 bytes",
        "type": "value_error.metadata_too_large",
    }
    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "t", "metadata": big})
    assert refusal(made) == (422, [finding])

    job_id = (await team.job())["job_id"]
    merged = {**finding, "loc": ["body", "call_metadata"]}
    assert refusal(await team.submit(job_id, call_metadata=big)) == (422, [merged])
    assert refusal(await team.complete(job_id, metadata=big)) == (422, [finding])
    assert (await team.read(job_id))["status"] == "pending"


async def test_complete_says_which_words_it_takes(team: Team, job_id: str):
    answer = await team.complete(job_id, "cancelled")
    finding = {"loc": ["body", "status"], "msg": "Input should be 'completed' or 'failed'", "type": "literal_error"}
    assert refusal(answer) == (422, [finding])


async def test_a_body_over_the_limit_is_413(scene: Scene, team: Team, job_id: str):
    limit = scene.rt.settings.max_body_bytes
    answer = await send_raw(team, f"/jobs/{job_id}/llm-call", b"", **{"Content-Length": str(limit + 1)})
    assert refusal(answer) == (413, "Request body too large")


async def test_a_body_that_hides_its_length_is_413_too(scene: Scene, team: Team, job_id: str):
    async def body():
        for _ in range(21):
            yield b" " * 2**20

    headers = {"Authorization": f"Bearer {team.key}"}
    answer = await scene.client.post(f"/api/jobs/{job_id}/llm-call", content=body(), headers=headers)
    assert refusal(answer) == (413, "Request body too large")


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 401), (64 * 1024 + 1, 413)])
async def test_of_somebody_who_is_not_known_only_a_short_body_is_taken_in(scene: Scene, size: int, status: int):
    body = b'{"email":"nobody@example.com","password":"wrong"}'
    found = await scene.client.post("/api/admin-users/login", content=body.ljust(size))
    assert found.status_code == status


async def test_the_body_is_json_whatever_its_content_type_says(team: Team, job_id: str):
    body = b'{"messages":[{"role":"user","content":"Hello"}]}'
    answer = await send_raw(
        team, f"/jobs/{job_id}/llm-call", body, **{"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 202


async def test_models_a_team_may_not_use(scene: Scene, team: Team, job_id: str):
    other = await scene.team()
    empty = await scene.api.group()
    for model, text in (
        (other.models[0], f"Team '{team.id}' does not have access to model alias '{other.models[0]}'"),
        (empty["group_name"], f"Team '{team.id}' does not have access to model group '{empty['group_name']}'"),
        ("no-such-model", "Model group 'no-such-model' not found or inactive"),
    ):
        answer = await team.submit(job_id, model=model)
        assert refusal(answer) == (403, text)
        assert "credit" not in text.lower()


async def test_a_group_whose_models_are_all_off(scene: Scene):
    team = await scene.team(alias={"active": False})
    group = await scene.row("select group_name from team_access_groups where team_id = :id", id=team.id)
    answer = await team.submit((await team.job())["job_id"], model=group.group_name)
    assert refusal(answer) == (403, f"No active models configured for group '{group.group_name}'")


async def test_a_model_without_a_price_is_422_naming_the_call(scene: Scene):
    free = {"pricing_input": None, "pricing_output": None, "litellm_model": "openai/no-price"}
    team = await scene.team(alias=free)
    finding = {"loc": ["body", "model"], "msg": "model has no price", "type": "value_error.unpriced"}
    assert refusal(await team.submit((await team.job())["job_id"])) == (422, [finding])

    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "t", "calls": [CALL]})
    assert refusal(made) == (422, [{**finding, "loc": ["body", "calls", 0, "model"]}])


async def test_a_team_without_any_model(scene: Scene):
    made = await scene.api.team(credits_allocated=5)
    team = Team(scene=scene, id=made["team_id"], key=made["virtual_key"], models=())
    answer = await team.submit((await team.job())["job_id"])
    assert refusal(answer) == (400, f"No model given and team '{team.id}' has no default model")


async def test_a_model_without_a_credential_is_503(scene: Scene):
    team = await scene.team(alias={"api_key": None})
    answer = await team.submit((await team.job())["job_id"])
    text = "No provider credentials configured for openai. Please add credentials in the admin dashboard."
    assert refusal(answer) == (503, text)
    assert int(answer.headers["retry-after"]) >= 1


JOB_PATHS = (
    ("GET", "/jobs/{}"),
    ("GET", "/jobs/{}/costs"),
    ("GET", "/jobs/{}/calls"),
    ("GET", "/jobs/{}/calls/" + UNKNOWN),
    ("POST", "/jobs/{}/complete"),
    ("POST", "/jobs/{}/cancel"),
    ("POST", "/jobs/{}/llm-call"),
    ("POST", "/jobs/{}/calls/" + UNKNOWN + "/cancel"),
)
BODIES = {"complete": {"status": "completed"}, "llm-call": CALL}


@pytest.mark.parametrize(("method", "path"), JOB_PATHS)
async def test_an_unknown_or_malformed_job_is_404(team: Team, method: str, path: str):
    for id_ in ("x", "019aa3c27b1e7c449d0a3f5b1c2d4e6f", "{019aa3c2}", "a%00b", "%C3%A9", UNKNOWN):
        answer = await team.send(method, path.format(id_), BODIES.get(path.rsplit("/", 1)[1], {}))
        assert refusal(answer) == (404, "Job not found")


@pytest.mark.parametrize(("method", "path"), JOB_PATHS)
async def test_another_teams_job_is_403(scene: Scene, team: Team, job_id: str, method: str, path: str):
    other = await scene.team()
    answer = await other.send(method, path.format(job_id), BODIES.get(path.rsplit("/", 1)[1], {}))
    assert refusal(answer) == (403, "Job does not belong to your team")


@pytest.mark.parametrize("id_", ["x", "a%00b", UNKNOWN])
async def test_an_unknown_call_is_404(team: Team, job_id: str, id_: str):
    assert refusal(await team.get(f"/jobs/{job_id}/calls/{id_}")) == (404, "Call not found")
    assert refusal(await team.post(f"/jobs/{job_id}/calls/{id_}/cancel")) == (404, "Call not found")


async def test_a_call_is_found_under_its_own_job_only(team: Team, job_id: str):
    call_id, other = await team.call(job_id), (await team.job())["job_id"]
    assert refusal(await team.get(f"/jobs/{other}/calls/{call_id}")) == (404, "Call not found")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "offset=-1", f"offset={10**30}", "order=up", "sort_by=id", "wait=x"],
)
async def test_a_query_that_does_not_validate(team: Team, job_id: str, query: str):
    path = f"/jobs/{job_id}" if query.startswith("wait") else f"/jobs/{job_id}/calls"
    answer = await team.get(f"{path}?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["query", query.split("=", maxsplit=1)[0]]


@pytest.mark.parametrize("query", ["purpose=a%00b", "status=%00"])
async def test_nul_in_a_query_is_never_a_500(team: Team, job_id: str, query: str):
    assert (await team.get(f"/jobs/{job_id}/calls?{query}")).status_code < 500


async def test_an_unknown_status_is_400(team: Team, job_id: str):
    text = "Invalid status: zzz. Must be one of: pending, in_progress, completed, failed, cancelled"
    assert refusal(await team.get(f"/jobs/{job_id}/calls?status=zzz")) == (400, text)
    assert (await team.get(f"/jobs/{job_id}/calls?status=PENDING&status=failed")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/", "/api/nothing", "/api/v2/jobs/create", "/api/v2", "/api/jobs/create/", "/health/",
        "/api/v1", "/api/api/jobs/create", "/docs/", "/redoc/", "/openapi.json/", "/static/x/docs.js",
        "/static/x/../../app.py", "/static/x/..%2F..%2Fapp.py",
    ],
)  # fmt: skip
async def test_an_unknown_path_or_a_trailing_slash_is_404(scene: Scene, path: str):
    answer = await scene.client.get(path)
    assert refusal(answer) == (404, "Not Found")
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/credits/add", "POST"),
        ("PUT", "/health", "GET, HEAD"),
        ("DELETE", "/api/teams/t/suspend", "POST, PUT"),
        ("PATCH", "/api/model-aliases/a", None),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("PUT", "/api/v1/credits/add", "POST"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_are_right(
    scene: Scene, method: str, path: str, allowed: str | None
):
    answer = await scene.client.request(method, path)
    assert refusal(answer) == (405, "Method Not Allowed")
    said = sorted(answer.headers["allow"].split(", "))
    assert method not in said
    if allowed is not None:
        assert said == allowed.split(", ")
    for right in said:
        assert (await scene.client.request(right, path)).status_code != 405


@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/calls", "/jobs/{}/costs", "/credits/balance", "/v1/jobs/{}"])
async def test_head_works_where_get_does(team: Team, job_id: str, path: str):
    got, headed = await team.get(path.format(job_id)), await team.send("HEAD", path.format(job_id))
    assert (got.status_code, headed.status_code) == (200, 200)
    assert headed.headers["content-type"] == got.headers["content-type"]


async def test_head_of_what_is_refused(scene: Scene, team: Team):
    assert (await team.send("HEAD", f"/jobs/{UNKNOWN}")).status_code == 404
    assert (await scene.client.head("/api/credits/balance")).status_code == 401
    assert (await scene.client.head("/health")).status_code == 200


async def test_v1_is_an_alias(team: Team):
    made = await team.post("/v1/jobs/create", {"team_id": team.id, "job_type": "t"})
    assert made.status_code == 200
    assert (await team.get(f"/v1/jobs/{made.json()['job_id']}")).json() == await team.read(made.json()["job_id"])


async def test_the_backlog_of_a_rate_limited_team_is_429_with_its_headers(scene: Scene):
    team = await scene.team(rpm_limit=2)
    job_id = (await team.job())["job_id"]
    counted = await team.submit(job_id)
    assert (counted.status_code, counted.headers["x-ratelimit-remaining"]) == (202, "0")
    refused = await team.submit(job_id)
    assert refusal(refused) == (429, "Rate limit exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["rate_limit_type"] == "requests"
    assert (await team.get(f"/jobs/{job_id}")).status_code == 200


async def test_what_the_hold_refuses_is_not_counted_against_the_rate(scene: Scene):
    team = await scene.team(credits=0, rpm_limit=2)
    job_id = (await team.job())["job_id"]
    for _ in range(3):
        assert refusal(await team.submit(job_id)) == (403, "Insufficient credits")


async def test_a_place_ends_before_what_only_the_client_can_have_named(team: Team, job_id: str):
    bad = await team.post(f"/jobs/{job_id}/llm-call", {**CALL, "logit_bias": {"SECRET": "x"}})
    assert [finding["loc"] for finding in bad.json()["detail"]] == [["body", "logit_bias"]]
    assert "SECRET" not in bad.text


async def test_a_bad_id_in_a_query_is_not_shown_back(team: Team):
    bad = await team.get("/credits/transactions?job_id=zz-secret")
    finding = {"loc": ["query", "job_id"], "msg": "Input should be a valid UUID", "type": "uuid_parsing"}
    assert refusal(bad) == (422, [finding])


async def test_of_a_unions_branches_the_fitting_one_speaks(team: Team, job_id: str):
    bad = await team.post(f"/jobs/{job_id}/llm-call", {**CALL, "stop": ["x"] * 17})
    [finding] = bad.json()["detail"]
    assert (finding["loc"], finding["type"]) == (["body", "stop"], "too_long")


async def test_a_bad_callback_is_found_before_the_model_is_looked_for(team: Team, job_id: str):
    wrong = {**CALL, "model": "nobody-has-this", "callback_url": "ftp://example.com/"}
    assert (await team.post(f"/jobs/{job_id}/llm-call", wrong)).status_code == 422


async def test_a_revoked_right_is_told_before_a_missing_one(scene: Scene, team: Team):
    made = (await scene.api.post(f"/teams/{team.id}/keys", {"blocked": True})).json()
    assert refusal(await scene.api.get("/teams", key=made["virtual_key"])) == (401, "API key is blocked")
