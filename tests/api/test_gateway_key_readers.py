"""Who reads keys, who manages them, and what is left of that: log lines, audit lines, kept answers, last use."""

import pytest
import structlog

from shared import keys
from tests.api.admin import Api, made, opened, unique
from tests.api.gateway_keys import NOBODY_S, UNKNOWN, Keys, refused, status_of
from tests.api.people import person
from tests.scene import Scene


@pytest.fixture
def gateway(api: Api) -> Keys:
    return Keys(api)


async def test_a_key_is_read_by_itself_its_team_its_user_and_admins(gateway: Keys):
    team, user = await gateway.api.team(), unique("user")
    sister = await gateway.api.team(organization_id=team["organization_id"])
    key = await gateway.generate(team_id=team["team_id"], user_id=user)
    same_team = await gateway.generate(team_id=team["team_id"], user_id=unique("other"))
    same_user = await gateway.generate(team_id=sister["team_id"], user_id=user)
    strangers = [await gateway.generate(team_id=sister["team_id"]), await gateway.generate(user_id=user)]

    own = made(await gateway.get("/key/info", key=key["key"]))
    assert (own["key"], own["info"]["key_name"], "token" in own["info"]) == (key["token"], key["key_name"], False)
    asked = f"/key/info?key={key['key']}"
    for reader in (key, same_team, same_user):
        answer = await gateway.get(asked, key=reader["key"])
        assert made(answer)["key"] == key["key_name"]
        assert key["key"] not in answer.text
    for reader in strangers:
        for name in (key["key"], key["token"]):
            answer = await gateway.get(f"/key/info?key={name}", key=reader["key"])
            text = "This key belongs to another team and another user"
            assert refused(answer) == (403, text, "permission_error", "key", 403)
    nameless = await gateway.generate(team_id=team["team_id"])
    assert (await gateway.get(f"/key/info?key={nameless['token']}", key=strangers[0]["key"])).status_code == 403
    assert refused(await gateway.get(f"/key/info?key={NOBODY_S}", key=key["key"])) == UNKNOWN
    assert refused(await gateway.get(f"/key/info?key={'0' * 64}")) == UNKNOWN
    assert refused(await gateway.get("/key/info"))[::3] == (400, "key")


async def test_a_key_in_a_query_is_in_no_line_of_the_log(gateway: Keys):
    key = await gateway.generate()
    with structlog.testing.capture_logs() as lines:
        for path in (f"/key/info?key={key['key']}", f"/olla/litellm/key/info?key={key['key']}"):
            made(await gateway.api.client.get(path, headers=gateway.api.admin))
        await gateway.api.client.get(f"/key/info/{key['key']}?key={key['key']}", headers=gateway.api.admin)
    assert len(lines) == 3
    assert key["key"] not in str(lines)


async def test_a_key_that_expires_says_so(scene: Scene):
    gateway = Keys(scene.api)
    key = await gateway.generate(duration="30s")
    async with scene.later(31) as rt, opened(rt) as later:
        assert (await Keys(later).info(key["token"]))["status"] == "expired"
    await scene.rows(
        "update virtual_keys set expires_at = app_now() where team_id = :id returning id", id=key["team_id"]
    )
    assert await status_of(scene.rt, key["key"]) == (401, "expired_key")


async def test_a_repeated_post_is_answered_alike_and_done_once(gateway: Keys):
    team = (await gateway.api.team())["team_id"]
    first = await gateway.post("/key/generate", {"team_id": team, "rpm_limit": 1}, Idempotency_Key="k-1")
    again = await gateway.post("/key/generate", {"rpm_limit": 1, "team_id": team}, Idempotency_Key="k-1")
    assert again.headers["idempotent-replayed"] == "true"
    key = made(first)
    assert made(again) == key
    other = await gateway.post("/key/generate", {"team_id": team}, Idempotency_Key="k-1")
    text = "Idempotency-Key was already used with a different request"
    assert refused(other)[::4] == (422, "idempotency_key_reused")
    assert text in refused(other)[1]
    for path, fields in (("update", {"rpm_limit": 5}), ("block", {}), ("unblock", {}), ("regenerate", {"grace_s": 9})):
        name, body = unique(path), {"key": key["token"], **fields}
        answers = [await gateway.post(f"/key/{path}", body, Idempotency_Key=name) for _ in range(2)]
        assert made(answers[0]) == made(answers[1])
    gone = [await gateway.post("/key/delete", {"keys": [key["token"]]}, Idempotency_Key=team) for _ in range(2)]
    assert made(gone[0]) == made(gone[1])
    assert made(await gateway.get("/key/list", team_id=team))["total_count"] == 1


async def test_keys_are_for_admins_and_made_by_those_who_may_write(scene: Scene):
    gateway = Keys(scene.api)
    key = await gateway.generate()
    reader = await person(scene, "user")
    paths = ["generate", "update", "delete", "block", "unblock", "regenerate"]
    body = {"key": key["token"], "keys": [key["token"]]}
    for method, path in [*(("POST", f"/key/{path}") for path in paths), ("GET", "/key/list")]:
        assert refused(await gateway.send(method, path, body, key=key["key"]))[:3] == (
            403, "Admin access required", "permission_error",
        )  # fmt: skip
        nobody = await scene.client.request(method, path, json=body)
        assert refused(nobody)[::2] == (401, "authentication_error", 401)
        answer = await gateway.send(method, path, body, key=reader.token)
        if method == "GET":
            assert answer.status_code == 200
        else:
            assert refused(answer)[:2] == (403, "Insufficient permissions. Required roles: owner, admin")
    assert (await gateway.info(key["token"]))["status"] == "active"
    for path in ("update", "block", "unblock", "regenerate"):
        writer = await person(scene, "admin")
        done = made(await gateway.post(f"/key/{path}", {"key": key["token"], "tags": ["t"]}, key=writer.token))
        assert (done["created_by"], done["updated_by"]) == ("admin_key", writer.id), path


async def test_no_secret_is_kept_in_the_audit_log(scene: Scene):
    gateway = Keys(scene.api)
    secret = unique("s3cret")
    more = {"metadata": {"m": secret}, "permissions": {"p": secret}, "config": {"c": secret}, "user_id": "ann"}
    key = await gateway.generate(key=f"sk-{secret}", **more)
    made(await gateway.post("/key/update", {"key": key["key"], **more, "rpm_limit": 5}))
    new = made(await gateway.post("/key/regenerate", {"key": key["key"]}))
    made(await gateway.post("/key/block", {"key": new["key"]}))
    made(await gateway.post("/key/unblock", {"key": new["key"]}))
    made(await gateway.post("/key/delete", {"keys": [new["key"]]}))
    lines = await scene.rows(
        "select action, resource_id, details::text as details from audit_log l where resource_type = 'key'"
        " and details->>'team_id' = :team order by id", team=key["team_id"],
    )  # fmt: skip
    actions = ["created_key", "updated_key", "rotated_key", "blocked_key", "unblocked_key", "revoked_key"]
    assert [line.action for line in lines] == actions
    assert len({line.resource_id for line in lines}) == 1
    assert '"ann"' in lines[0].details
    assert '"rpm_limit": 5' in lines[1].details
    assert '["config", "metadata", "permissions"]' in lines[1].details
    for shown in (secret, new["key"]):
        assert all(shown not in line.details for line in lines)


async def test_when_a_key_was_last_used_is_written_now_and_then(scene: Scene):
    gateway = Keys(scene.api)
    key, unused = await gateway.generate(), await gateway.generate()
    before = (await scene.row("select app_now() as now")).now
    for _ in range(3):
        made(await gateway.get("/key/info", key=key["key"]))
    assert (await gateway.info(key["token"]))["last_active"] is None
    last_active = scene.app.state.authenticator.last_active
    async with scene.rt.db.transaction() as tx:
        [row] = await scene.rows("select id from virtual_keys where team_id = :id and created_by is not null",
                                 id=key["team_id"])  # fmt: skip
        await keys.lock(tx, key["team_id"], row.id)
        await last_active.write()
    assert (await gateway.info(key["token"]))["last_active"] is None, "a locked key is not waited for"
    await last_active.write()
    written = await gateway.info(key["token"])
    assert written["last_active"] >= before.strftime("%Y-%m-%dT%H:%M:%S")
    assert written["updated_at"] == key["updated_at"]
    assert (await gateway.info(unused["token"]))["last_active"] is None
