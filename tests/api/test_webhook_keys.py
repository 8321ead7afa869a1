"""Keys of webhooks: rotated with a grace, listed without values, revoked at once, public where they may be."""

import asyncio
from typing import Any

import pytest

from shared import ids, webhook_keys
from shared.db import hot
from shared.runtime import Runtime
from shared.signing import public_key, secret_bytes
from tests.api.admin import made, refusal, wrong_place
from tests.scene import Scene, Team
from workers import retention

URL = "http://127.0.0.1:9999/hook"
DAY_S = 86_400


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def registered(team: Team, **fields: Any) -> dict[str, Any]:
    return made(await team.post("/webhooks", {"team_id": team.id, "webhook_url": URL, **fields}))


async def rotated(team: Team, endpoint: dict[str, Any], **body: Any) -> dict[str, Any]:
    return made(await team.post(f"/webhooks/{endpoint['webhook_id']}/rotate-secret", body))


async def listed(team: Team, endpoint: dict[str, Any], kind: str = "v1") -> list[dict[str, Any]]:
    """The keys of a kind, newest first."""
    found = made(await team.get(f"/webhooks/{endpoint['webhook_id']}/secrets"))["secrets"]
    assert all(not any(word in str(key) for word in ("whsec_", "whsk_")) for key in found)
    return [key for key in found if key["kind"] == kind]


async def revoked(team: Team, endpoint: dict[str, Any], key: dict[str, Any]) -> Any:
    return await team.send("DELETE", f"/webhooks/{endpoint['webhook_id']}/secrets/{key['key_id']}")


async def opened(rt: Runtime, webhook_id: str) -> list[str]:
    """The values of the keys that are valid by the clock of this runtime, newest first."""
    id_ = ids.parse_prefixed("whe", webhook_id)
    assert id_ is not None
    async with rt.db.transaction() as tx:
        valid = {key.id for key in await webhook_keys.of_endpoint(tx, id_)}
        newest = await hot(tx, "select id, secret_sealed as sealed from webhook_endpoints where id = %s", [id_])
        old = await hot(
            tx, "select id, key_sealed as sealed from webhook_keys where endpoint_id = %s order by id desc", [id_]
        )
    purposes = [(row, f"webhook_endpoints.secret:{row.id}") for row in newest]
    purposes += [(row, f"webhook_keys.key:{row.id}") for row in old if row.id in valid]
    return [rt.sealer.open(row.sealed, purpose=purpose) for row, purpose in purposes]


async def test_rotation_gives_a_new_secret_and_the_old_one_is_valid_until_the_grace_ends(scene: Scene, team: Team):
    endpoint = await registered(team)
    answer = await rotated(team, endpoint)
    assert set(answer) == {"webhook_id", "secret", "previous_expires_at", "public_key"}
    assert len(secret_bytes(answer["secret"])) == 32
    both = [answer["secret"], endpoint["secret"]]
    assert await opened(scene.rt, endpoint["webhook_id"]) == both
    newest, old = await listed(team, endpoint)
    assert (newest["expires_at"], old["expires_at"]) == (None, answer["previous_expires_at"])
    assert old["created_at"] < newest["created_at"]

    async with scene.later(DAY_S - 5) as rt:
        assert await opened(rt, endpoint["webhook_id"]) == both
    async with scene.later(DAY_S + 1) as rt:
        assert await opened(rt, endpoint["webhook_id"]) == both[:1]
        assert (await retention.rounds(rt).run())["webhook_keys"] >= 1
    assert len(await listed(team, endpoint)) == 1


async def test_a_rotation_without_grace_ends_every_older_key(scene: Scene, team: Team):
    endpoint = await registered(team, signing="both")
    await rotated(team, endpoint, grace_s=600)
    assert (len(await listed(team, endpoint)), len(await listed(team, endpoint, "v1a"))) == (2, 2)

    answer = await rotated(team, endpoint, grace_s=0)
    assert answer["previous_expires_at"] is None
    assert (len(await listed(team, endpoint)), len(await listed(team, endpoint, "v1a"))) == (1, 1)
    assert (await opened(scene.rt, endpoint["webhook_id"]))[0] == answer["secret"]


async def test_a_key_keeps_its_id_when_it_is_replaced(team: Team):
    endpoint = await registered(team)
    [before] = await listed(team, endpoint)
    await rotated(team, endpoint)
    assert (await listed(team, endpoint))[1]["key_id"] == before["key_id"]


async def test_at_most_ten_old_keys_sign(team: Team):
    endpoint = await registered(team, signing="both")
    for _ in range(10):
        await rotated(team, endpoint)
    path = f"/webhooks/{endpoint['webhook_id']}/rotate-secret"
    refused = (400, "Too many old keys: at most 10 sign beside the newest")
    assert refusal(await team.post(path, {})) == refused
    keys = await listed(team, endpoint)
    assert len(keys) == 11
    made(await revoked(team, endpoint, keys[-1]))
    # The ed25519 keys are counted for themselves.
    assert refusal(await team.post(path, {})) == refused
    made(await revoked(team, endpoint, (await listed(team, endpoint, "v1a"))[-1]))
    assert (await team.post(path, {})).status_code == 200
    assert (await team.post(path, {"grace_s": 0})).status_code == 200


@pytest.mark.parametrize("grace_s", [-1, 604_801, "long"])
async def test_a_grace_is_at_most_a_week(team: Team, grace_s: Any):
    endpoint = await registered(team)
    answer = await team.post(f"/webhooks/{endpoint['webhook_id']}/rotate-secret", {"grace_s": grace_s})
    assert wrong_place(answer) == ["body", "grace_s"]
    assert (await rotated(team, endpoint, grace_s=604_800))["previous_expires_at"] is not None


async def test_a_repeat_with_the_same_idempotency_key_rotates_once(scene: Scene, team: Team):
    endpoint = await registered(team)
    path = f"/webhooks/{endpoint['webhook_id']}/rotate-secret"
    first, again = [await team.post(path, {}, Idempotency_Key="r-1") for _ in range(2)]
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert await opened(scene.rt, endpoint["webhook_id"]) == [first.json()["secret"], endpoint["secret"]]


async def test_rotations_at_once_lose_no_key(scene: Scene, team: Team):
    endpoint = await registered(team)
    answers = await asyncio.gather(*(rotated(team, endpoint) for _ in range(4)))
    valid = await opened(scene.rt, endpoint["webhook_id"])
    assert sorted(valid) == sorted([endpoint["secret"], *(answer["secret"] for answer in answers)])


async def test_revoking_the_newest_secret_promotes_the_one_it_replaced(scene: Scene, team: Team):
    endpoint = await registered(team)
    await rotated(team, endpoint, grace_s=600)
    newest, old = await listed(team, endpoint)
    made(await revoked(team, endpoint, newest))
    [left] = await listed(team, endpoint)
    assert left == {**old, "expires_at": None}
    assert await opened(scene.rt, endpoint["webhook_id"]) == [endpoint["secret"]]
    assert refusal(await revoked(team, endpoint, left)) == (400, "Cannot revoke the last key")
    assert await listed(team, endpoint) == [left]


async def test_an_old_key_is_revoked_at_once(scene: Scene, team: Team):
    endpoint = await registered(team)
    answer = await rotated(team, endpoint)
    _, old = await listed(team, endpoint)
    made(await revoked(team, endpoint, old))
    assert await opened(scene.rt, endpoint["webhook_id"]) == [answer["secret"]]
    assert refusal(await revoked(team, endpoint, old)) == (404, "Key not found")


async def test_the_public_keys_of_an_endpoint_are_fetched_by_anybody(scene: Scene, team: Team):
    endpoint = await registered(team, signing="v1a")
    path = f"/api/webhooks/{endpoint['webhook_id']}/jwks.json"
    [first] = made(await scene.client.get(path))["keys"]
    answer = await rotated(team, endpoint)
    second, grace = made(await scene.client.get(path))["keys"]
    assert grace == first
    private = (await opened(scene.rt, endpoint["webhook_id"]))[1]
    assert public_key(private) == answer["public_key"]
    newest, old = await listed(team, endpoint, "v1a")
    assert [newest["key_id"], old["key_id"]] == [second["kid"], first["kid"]]
    assert newest["public_key"] == answer["public_key"]

    made(await revoked(team, endpoint, newest))
    assert made(await scene.client.get(path))["keys"] == [first]
    [left] = await listed(team, endpoint, "v1a")
    assert (left["key_id"], left["expires_at"]) == (first["kid"], None)
    assert refusal(await revoked(team, endpoint, left)) == (400, "Cannot revoke the last key")


async def test_an_endpoint_that_signs_with_ed25519_again_has_the_key_it_had(team: Team):
    endpoint = await registered(team, signing="v1a")
    for scheme in ("v1", "both"):
        changed = made(await team.send("PATCH", f"/webhooks/{endpoint['webhook_id']}", {"signing": scheme}))
    assert changed["public_key"] == endpoint["public_key"]
    assert len(await listed(team, endpoint, "v1a")) == 1


async def test_an_ed25519_key_that_does_not_sign_may_be_the_last_to_be_revoked(scene: Scene, team: Team):
    endpoint = await registered(team, signing="both")
    await scene.rows("update webhook_endpoints set signing = 'v1' where team_id = :t returning id", t=team.id)
    [key] = await listed(team, endpoint, "v1a")
    made(await revoked(team, endpoint, key))
    jwks = await scene.client.get(f"/api/webhooks/{endpoint['webhook_id']}/jwks.json")
    assert made(jwks) == {"keys": []}


@pytest.mark.parametrize("id_", ["whe_" + "0" * 32, "nonsense"])
async def test_an_unknown_endpoint_has_no_keys(scene: Scene, team: Team, id_: str):
    unknown = (404, "Webhook not found")
    assert refusal(await team.post(f"/webhooks/{id_}/rotate-secret", {})) == unknown
    assert refusal(await team.get(f"/webhooks/{id_}/secrets")) == unknown
    assert refusal(await team.send("DELETE", f"/webhooks/{id_}/secrets/whk_1")) == unknown
    assert refusal(await scene.client.get(f"/api/webhooks/{id_}/jwks.json")) == unknown


async def test_keys_of_another_team_or_endpoint_are_out_of_reach(scene: Scene, team: Team):
    mine, second = await registered(team), await registered(team)
    [key] = await listed(team, mine)
    assert refusal(await revoked(team, second, key)) == (404, "Key not found")
    other = await scene.team()
    refused = (403, "Webhook does not belong to your team")
    assert refusal(await other.post(f"/webhooks/{mine['webhook_id']}/rotate-secret", {})) == refused
    assert refusal(await revoked(other, mine, key)) == refused


async def test_what_an_admin_does_with_keys_is_in_the_audit_log(scene: Scene, team: Team):
    endpoint = await registered(team)
    made(await scene.api.post(f"/webhooks/{endpoint['webhook_id']}/rotate-secret", {}))
    [_, old] = await listed(team, endpoint)
    made(await scene.api.send("DELETE", f"/webhooks/{endpoint['webhook_id']}/secrets/{old['key_id']}"))
    made(await scene.api.post("/webhooks/callback-secret/rotate", {"team_id": team.id}))
    rows = await scene.rows(
        "select action, details::text as details from audit_log where resource_id in (:webhook, :team) order by id",
        webhook=endpoint["webhook_id"], team=team.id,
    )  # fmt: skip
    assert [row.action for row in rows][-3:] == ["rotated_secret", "revoked_secret", "rotated_callback_secret"]
    assert not any("whsec_" in row.details for row in rows)


async def callback_keys(rt: Runtime, team_id: str) -> list[str]:
    """What signs this team's callbacks by the clock of this runtime, newest first."""
    async with rt.db.transaction() as tx:
        [newest] = await hot(tx, "select callback_secret_sealed as sealed from teams where id = %s", [team_id])
        old = await hot(
            tx,
            "select id, key_sealed as sealed from webhook_keys where team_id = %s and expires_at > app_now()",
            [team_id],
        )
    return [
        rt.sealer.open(newest.sealed, purpose=f"teams.callback_secret:{team_id}"),
        *(rt.sealer.open(row.sealed, purpose=f"webhook_keys.key:{row.id}") for row in old),
    ]


async def test_a_teams_callback_key_is_replaced_with_and_without_a_grace(scene: Scene, team: Team):
    first = await callback_keys(scene.rt, team.id)
    second = made(await team.post("/webhooks/callback-secret/rotate"))
    assert set(second) == {"team_id", "secret", "previous_expires_at"}
    assert (second["team_id"], second["previous_expires_at"]) == (team.id, None)
    assert await callback_keys(scene.rt, team.id) == [second["secret"]] != first

    third = made(await team.post("/webhooks/callback-secret/rotate", {"grace_s": 60}))
    assert await callback_keys(scene.rt, team.id) == [third["secret"], second["secret"]]
    async with scene.later(61) as rt:
        assert await callback_keys(rt, team.id) == [third["secret"]]


async def test_whose_callback_key_is_said_by_admins_only(scene: Scene, team: Team):
    other = await scene.team()
    path = "/webhooks/callback-secret/rotate"
    assert wrong_place(await scene.api.post(path)) == ["body", "team_id"]
    assert refusal(await scene.api.post(path, {"team_id": "nobody"})) == (404, "Team 'nobody' not found")
    refused = (403, f"API key does not belong to team '{team.id}'")
    assert refusal(await other.post(path, {"team_id": team.id})) == refused
    assert made(await scene.api.post(path, {"team_id": team.id}))["team_id"] == team.id


async def test_a_secret_that_no_key_of_ours_opens_is_repaired_by_a_rotation(scene: Scene, team: Team):
    endpoint = await registered(team)
    await scene.rows("update webhook_endpoints set secret_sealed = 'x' where team_id = :t returning id", t=team.id)
    answer = await rotated(team, endpoint)
    assert answer["previous_expires_at"] is None
    assert await opened(scene.rt, endpoint["webhook_id"]) == [answer["secret"]]
