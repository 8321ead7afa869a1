"""Admin users: who may make, read, change and delete whom, and what the audit log says of it."""

import asyncio
from typing import Any

import pytest

from api.wire.admins import AdminUser, AuditLine
from tests.api.admin import made, refusal, unique, wrong_place
from tests.api.people import PASSWORD, Person, at_new_address, person
from tests.scene import Scene

UNKNOWN = (404, "User not found")
NO_MODIFYING = (403, "Admins cannot modify owner or admin users")
LAST_OWNER = (400, "Cannot deactivate the last owner")
NOBODY = "019aa3c2-81f0-7d12-8e3b-6a7c8d9e0f1a"


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """Nobody administers yet."""
    return fresh_database_url


def ann(**fields: Any) -> dict[str, Any]:
    return {"email": f"{unique('ann')}@acme.example", "display_name": "Ann", "password": PASSWORD, **fields}


async def lines(scene: Scene, query: str = "") -> list[dict[str, Any]]:
    answer = await scene.api.get(f"/admin-users/audit-logs{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    for line in found:
        AuditLine.model_validate(line)
    return found


async def test_a_user_is_made_and_read(scene: Scene):
    owner = await person(scene, "owner")
    user = made(await owner.post("/admin-users", ann(role="admin", metadata={"desk": 3})))

    AdminUser.model_validate(user)
    assert (user["role"], user["is_active"], user["created_by"], user["metadata"], user["last_login"]) == (
        "admin", True, owner.id, {"desk": 3}, None,
    )  # fmt: skip
    assert made(await owner.get(f"/admin-users/{user['user_id']}")) == user
    assert "password" not in user


async def test_users_are_listed_newest_first_with_their_number(scene: Scene):
    made_ids = [made(await scene.api.post("/admin-users", ann()))["user_id"] for _ in range(3)]
    first = await scene.api.get("/admin-users?limit=2")
    assert [user["user_id"] for user in first.json()] == made_ids[:0:-1]
    assert first.headers["x-total-count"] == "3"
    assert first.headers["link"] == '</api/admin-users?limit=2&offset=2>; rel="next"'
    rest = await scene.api.get("/admin-users?limit=2&offset=2")
    assert [user["user_id"] for user in rest.json()] == made_ids[:1]
    assert "link" not in rest.headers


async def test_an_address_is_registered_once_whatever_its_case(scene: Scene):
    body = ann(email="Ann@Acme.example")
    answers = await asyncio.gather(
        *(
            scene.api.post("/admin-users", {**body, "email": email})
            for email in ("ann@acme.example", "ANN@acme.EXAMPLE")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert refusal(await scene.api.post("/admin-users", body)) == (400, "Email already registered")


@pytest.mark.parametrize(
    ("field", "value"),
    [("password", "1234567"), ("role", "root"), ("email", "ann"), ("display_name", "x" * 256), ("metadata", [])],
)
async def test_what_is_no_user(scene: Scene, field: str, value: Any):
    assert wrong_place(await scene.api.post("/admin-users", ann(**{field: value}))) == ["body", field]


async def test_a_repeated_create_makes_one(scene: Scene):
    body, key = ann(), {**scene.api.admin, "Idempotency-Key": "k"}
    first = await scene.client.post("/api/admin-users", json=body, headers=key)
    again = await scene.client.post("/api/admin-users", json=body, headers=key)
    assert made(first) == made(again)
    assert again.headers["idempotent-replayed"] == "true"


async def test_what_an_admin_may_not(scene: Scene):
    owner, admin = await person(scene, "owner"), await person(scene, "admin")
    user, other = await person(scene), await person(scene, "admin")
    for role in ("owner", "admin"):
        refused = await admin.post("/admin-users", ann(role=role))
        assert refusal(refused) == (403, "Admins can only create users with 'user' role")
        promoted = await admin.put(f"/admin-users/{user.id}", {"role": role})
        assert refusal(promoted) == (403, "Admins cannot promote users to owner or admin")
    for above in (owner, other):
        assert refusal(await admin.put(f"/admin-users/{above.id}", {"display_name": "x"})) == NO_MODIFYING
        assert refusal(await admin.put(f"/admin-users/{above.id}/deactivate")) == NO_MODIFYING
        assert refusal(await admin.put(f"/admin-users/{above.id}/activate")) == NO_MODIFYING
        refused = await admin.send("DELETE", f"/admin-users/{above.id}")
        assert refusal(refused) == (403, "Admins cannot delete owner or admin users")
    made(await admin.post("/admin-users", ann()))
    assert made(await admin.put(f"/admin-users/{user.id}", {"display_name": "Bob"}))["display_name"] == "Bob"
    assert made(await admin.send("DELETE", f"/admin-users/{user.id}")) == {"message": "User deleted successfully"}


async def test_a_user_changes_where_the_body_says_so(scene: Scene):
    owner = await person(scene, "owner")
    user = made(await owner.post("/admin-users", ann(metadata={"a": 1})))
    path = f"/admin-users/{user['user_id']}"
    changed = made(await owner.put(path, {"display_name": "Bob", "role": None, "is_active": True}))
    assert changed == {**user, "display_name": "Bob"}
    assert made(await owner.put(path, {"role": "admin", "metadata": {}}))["metadata"] == {}
    assert made(await owner.put(path, {"is_active": False}))["is_active"] is False
    assert made(await owner.put(f"{path}/activate"))["is_active"] is True
    assert made(await owner.put(path, {})) == made(await owner.get(path))


async def test_nobody_changes_their_own_role_or_deletes_themselves(scene: Scene):
    owner, admin = await person(scene, "owner"), await person(scene, "admin")
    refused = await owner.put(f"/admin-users/{owner.id}", {"role": "admin"})
    assert refusal(refused) == (400, "Cannot change your own role")
    assert made(await owner.put(f"/admin-users/{owner.id}", {"role": "owner", "display_name": "Me"}))
    for who in (owner, admin):
        refused = await who.send("DELETE", f"/admin-users/{who.id}")
        assert refusal(refused) == (400, "Cannot delete your own account")


@pytest.mark.parametrize("user_id", ["zz", NOBODY, "1"])
async def test_an_id_nobody_has(scene: Scene, user_id: str):
    path = f"/admin-users/{user_id}"
    password = {"new_password": "a new password"}
    assert refusal(await scene.api.get(path)) == UNKNOWN
    assert refusal(await scene.api.put(path, {"display_name": "x"})) == UNKNOWN
    assert refusal(await scene.api.put(f"{path}/activate")) == UNKNOWN
    assert refusal(await scene.api.put(f"{path}/deactivate")) == UNKNOWN
    assert refusal(await scene.api.send("DELETE", path)) == UNKNOWN
    assert refusal(await scene.api.post(f"{path}/change-password", password)) == UNKNOWN


async def test_the_last_owner_stays(scene: Scene):
    owner = await person(scene, "owner")
    path = f"/admin-users/{owner.id}"
    assert refusal(await scene.api.put(f"{path}/deactivate")) == LAST_OWNER
    assert refusal(await scene.api.put(path, {"is_active": False})) == LAST_OWNER
    assert refusal(await scene.api.send("DELETE", path)) == LAST_OWNER
    assert refusal(await scene.api.put(path, {"role": "admin"})) == (400, "Cannot demote the last owner")
    made(await scene.api.put(path, {"display_name": "Still here"}))
    await person(scene, "owner")
    assert made(await scene.api.put(f"{path}/deactivate"))["is_active"] is False


@pytest.mark.parametrize("change", ["deactivate", "demote", "delete"])
async def test_of_two_owners_that_go_at_once_one_stays(scene: Scene, change: str):
    owners = [await person(scene, "owner") for _ in range(4)]
    ways = {
        "deactivate": lambda path: scene.api.put(f"{path}/deactivate"),
        "demote": lambda path: scene.api.put(path, {"role": "user"}),
        "delete": lambda path: scene.api.send("DELETE", path),
    }
    answers = await asyncio.gather(*(ways[change](f"/admin-users/{owner.id}") for owner in owners))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 400]
    left = await scene.row("select count(*) as n from admin_users where role = 'owner' and is_active")
    assert left.n == 1


async def test_a_deleted_user_is_kept_and_their_address_too(scene: Scene):
    user = await person(scene)
    made(await scene.api.send("DELETE", f"/admin-users/{user.id}"))
    assert made(await scene.api.get(f"/admin-users/{user.id}"))["is_active"] is False
    again = await scene.api.post("/admin-users", ann(email=user.email))
    assert refusal(again) == (400, "Email already registered")


async def test_the_log_says_who_did_what_to_whom_from_where(scene: Scene):
    owner = await person(scene, "owner")
    user = made(await owner.post("/admin-users", ann()))
    await owner.put(f"/admin-users/{user['user_id']}", {"display_name": "Bob", "metadata": {"secret": "s3cret"}})
    await owner.send("DELETE", f"/admin-users/{user['user_id']}")
    await owner.post("/admin-users/logout")

    found = await lines(scene)

    theirs = [(line["action"], line["resource_id"]) for line in found if line["user_id"] == owner.id]
    user_id = user["user_id"]
    assert theirs == [
        ("logout", owner.id), ("deleted_user", user_id), ("updated_user", user_id), ("created_user", user_id),
        ("login", owner.id),
    ]  # fmt: skip
    assert found[-1]["user_id"] == "admin_key"
    assert {line["resource_type"] for line in found} == {"admin_user"}
    assert {line["ip_address"] for line in found if line["user_id"] == owner.id} == {address(owner)}
    told = str(found)
    assert PASSWORD not in told
    assert "s3cret" not in told
    assert "argon2" not in told


async def test_a_failed_login_is_in_the_log_without_what_was_typed(scene: Scene):
    user, client = await person(scene), at_new_address(scene)
    for email in (user.email, "my-p@ssword"):
        await client.post("/api/admin-users/login", json={"email": email, "password": "wrong password"})
    unknown, known = await lines(scene, "?action=login_failed")
    assert (known["user_id"], known["resource_id"], known["details"]) == ("anonymous", user.id, {"email": user.email})
    assert (unknown["resource_id"], unknown["details"]) == (None, {})


async def test_a_refused_deed_is_not_in_the_log(scene: Scene):
    owner = await person(scene, "owner")
    before = await lines(scene)
    assert refusal(await scene.api.put(f"/admin-users/{owner.id}/deactivate")) == LAST_OWNER
    assert refusal(await scene.api.post("/admin-users", ann(email=owner.email))) == (400, "Email already registered")
    assert await lines(scene) == before


async def test_the_log_is_filtered_and_paged(scene: Scene):
    owner = await person(scene, "owner")
    for _ in range(3):
        made(await owner.post("/admin-users", ann()))
    assert len(await lines(scene, f"?user_id={owner.id}")) == 4
    assert len(await lines(scene, f"?user_id={owner.id}&action=created_user")) == 3
    assert await lines(scene, "?resource_type=team") == []
    assert len(await lines(scene, "?start_date=2026-01-01&resource_type=admin_user")) == 5
    assert await lines(scene, "?end_date=2026-01-01") == []
    page = await scene.api.get("/admin-users/audit-logs?action=created_user&limit=1&offset=1")
    assert page.headers["x-total-count"] == "4"
    assert page.headers["link"] == '</api/admin-users/audit-logs?action=created_user&limit=1&offset=2>; rel="next"'
    assert page.json() == (await lines(scene, "?action=created_user"))[1:2]
    bad = await scene.api.get("/admin-users/audit-logs?start_date=zzz")
    assert refusal(bad) == (400, "Invalid start_date format: zzz. Use ISO format (YYYY-MM-DD)")
    assert wrong_place(await scene.api.get("/admin-users/audit-logs?limit=0")) == ["query", "limit"]


def address(of: Person) -> str:
    """Where their requests come from."""
    found: str = of.client._transport.client[0]  # type: ignore[attr-defined]
    return found
