"""Login, logout and passwords of admin users: who gets in, who does not, and for how long."""

import asyncio
import time
from dataclasses import replace

import httpx
import jwt
import pytest

from api.app import create_app
from api.passwords import MOST_WAITING, Passwords
from api.wire.admins import AdminUser, LoggedIn
from shared import login_failures
from shared.errors import Unavailable
from tests.api.admin import made, refusal, unique, wrong_place
from tests.api.people import PASSWORD, Person, at_new_address, logged_in, person
from tests.conftest import SECRET_KEY
from tests.scene import Scene
from workers import retention

THROTTLED = (429, "Too many login attempts")
WRONG = (401, "Invalid email or password")
OVER = (401, "Session expired or revoked")
DAY_S = 86_400


async def login(client: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/api/admin-users/login", json={"email": email, "password": password})


@pytest.mark.parametrize("path", ["/api/admin-users/login", "/api/admin/login", "/api/v1/admin/login"])
async def test_both_ways_to_log_in(scene: Scene, path: str):
    ann = await person(scene, "admin")
    answer = made(await scene.client.post(path, json={"email": f" {ann.email.upper()} ", "password": PASSWORD}))

    LoggedIn.model_validate(answer)
    claims = jwt.decode(answer["access_token"], SECRET_KEY, algorithms=["HS256"])
    assert set(claims) == {"user_id", "email", "role", "exp", "iat", "jti"}
    assert (claims["user_id"], claims["email"], claims["role"]) == (ann.id, ann.email, "admin")
    assert claims["exp"] - claims["iat"] == DAY_S
    kept = await scene.rows("select hash from admin_sessions")
    assert all(answer["access_token"].encode() not in bytes(row.hash) for row in kept)


async def test_who_does_not_get_in(scene: Scene):
    ann = await person(scene)
    client = at_new_address(scene)
    wrong = await login(client, ann.email, "wrong password")
    assert refusal(wrong) == WRONG
    assert wrong.headers["www-authenticate"] == "Bearer"
    assert refusal(await login(client, "nobody@acme.example")) == WRONG
    made(await scene.api.put(f"/admin-users/{ann.id}/deactivate"))
    assert refusal(await login(client, ann.email)) == WRONG


async def test_five_failures_for_an_address_of_mail_shut_the_door_for_a_quarter_hour(scene: Scene):
    ann = await person(scene)
    for _ in range(5):
        assert refusal(await login(at_new_address(scene), ann.email, "wrong password")) == WRONG

    answer = await login(at_new_address(scene), ann.email.upper())

    assert refusal(answer) == THROTTLED
    assert 890 <= int(answer.headers["retry-after"]) <= 900
    made(await login(at_new_address(scene), (await person(scene)).email))
    async with scene.later(901) as rt, _client(rt) as client:
        made(await login(client, ann.email))


async def test_five_failures_from_an_address_of_the_network_shut_it_for_everybody_there(scene: Scene):
    ann, client = await person(scene), at_new_address(scene)
    for n in range(5):
        assert refusal(await login(client, f"nobody-{n}@acme.example")) == WRONG
    assert refusal(await login(client, ann.email)) == THROTTLED
    made(await login(at_new_address(scene), ann.email))


async def test_of_many_guesses_at_once_only_five_are_told_whether_they_are_right(scene: Scene):
    ann = await person(scene)
    guesses = [*("wrong password" for _ in range(19)), PASSWORD]
    answers = await asyncio.gather(*(login(at_new_address(scene), ann.email, guess) for guess in guesses))
    told = [answer.status_code for answer in answers]
    assert told.count(401) == 5
    assert told.count(429) >= 14
    assert (await scene.row("select count(*) as n from login_failures where email = :e", e=ann.email)).n == 5


async def test_failures_are_counted_one_after_the_other_whichever_process_counts(scene: Scene):
    email, address = f"{unique('ann')}@acme.example", unique("address")

    async def fails() -> bool:
        async with scene.rt.db.transaction() as tx:
            await login_failures.lock(tx, email, address)
            if await login_failures.wait_s(tx, email, address):
                return False
            await login_failures.record(tx, email, address)
            return True

    assert sum(await asyncio.gather(*(fails() for _ in range(scene.rt.settings.database_pool)))) == login_failures.MOST


async def test_right_passwords_at_once_are_no_failures(scene: Scene):
    ann = await person(scene)
    answers = await asyncio.gather(*(login(ann.client, ann.email) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 8


async def test_logout_ends_this_session_only(scene: Scene):
    ann = await person(scene)
    other = await ann.again()
    assert made(await ann.post("/admin-users/logout")) == {"message": "Logged out successfully"}
    assert refusal(await ann.get("/admin-users/me")) == OVER
    AdminUser.model_validate(made(await other.get("/admin-users/me")))


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/admin-users/me/change-password"), ("PUT", "/admin-users/password")]
)
async def test_a_new_password_ends_the_other_sessions(scene: Scene, method: str, path: str):
    ann = await person(scene)
    other = await ann.again()
    wrong = await ann.send(method, path, {"current_password": "wrong password", "new_password": "a new password"})
    assert refusal(wrong) == (401, "Current password is incorrect")
    assert wrong.headers["www-authenticate"] == "Bearer"
    short = await ann.send(method, path, {"current_password": PASSWORD, "new_password": "1234567"})
    assert wrong_place(short) == ["body", "new_password"]

    done = made(await ann.send(method, path, {"current_password": PASSWORD, "new_password": "a new password"}))

    assert done == {"message": "Password changed successfully"}
    assert refusal(await other.get("/admin-users/me")) == OVER
    made(await ann.get("/admin-users/me"))
    assert refusal(await login(at_new_address(scene), ann.email)) == WRONG
    await logged_in(at_new_address(scene), ann.email, "a new password")


@pytest.mark.parametrize(("method", "action"), [("POST", "change-password"), ("PUT", "reset-password")])
async def test_an_owner_gives_somebody_a_new_password(scene: Scene, method: str, action: str):
    owner, ann = await person(scene, "owner"), await person(scene, "admin")
    path = f"/admin-users/{ann.id}/{action}"
    refused = await ann.send(method, path, {"new_password": "a new password"})
    assert refusal(refused) == (403, "Insufficient permissions. Required roles: owner")

    done = made(await owner.send(method, path, {"new_password": "a new password"}))

    assert done == {"message": "Password changed successfully"}
    assert refusal(await ann.get("/admin-users/me")) == OVER
    await logged_in(ann.client, ann.email, "a new password")
    unknown = await owner.send(method, f"/admin-users/zz/{action}", {"new_password": "a new password"})
    assert refusal(unknown) == (404, "User not found")


async def test_a_password_that_was_changed_meanwhile_opens_nothing(scene: Scene):
    ann = await person(scene)
    change = {"current_password": PASSWORD, "new_password": "a new password"}
    answers = await asyncio.gather(
        ann.post("/admin-users/me/change-password", change),
        *(login(ann.client, ann.email) for _ in range(4)),
    )
    made(answers[0])
    for answer in answers[1:]:
        if answer.status_code == 200:
            late = Person(client=ann.client, id=ann.id, email=ann.email, token=answer.json()["access_token"])
            assert refusal(await late.get("/admin-users/me")) == OVER


async def test_a_session_ends_after_a_day(scene: Scene):
    ann = await person(scene)
    bearer = {"Authorization": f"Bearer {ann.token}"}
    async with scene.later(DAY_S - 60) as rt, _client(rt) as client:
        made(await client.get("/api/admin-users/me", headers=bearer))
    async with scene.later(DAY_S + 60) as rt, _client(rt) as client:
        assert refusal(await client.get("/api/admin-users/me", headers=bearer)) == (401, "Invalid or expired token")


@pytest.mark.parametrize(
    ("changed", "key", "detail"),
    [
        ({}, "another-secret-key-of-32-characters", "Invalid or expired token"),
        ({"exp": 1}, SECRET_KEY, "Invalid or expired token"),
        ({"exp": None}, SECRET_KEY, "Invalid token payload"),
        ({"exp": 10**20}, SECRET_KEY, "Invalid token payload"),
        ({"user_id": None}, SECRET_KEY, "Invalid token payload"),
        ({"user_id": "1"}, SECRET_KEY, "Invalid token payload"),
        ({"email": None}, SECRET_KEY, "Invalid token payload"),
        ({"jti": None}, SECRET_KEY, "Invalid token payload"),
        ({"jti": "another"}, SECRET_KEY, "Session expired or revoked"),
        ({"user_id": "019aa3c2-81f0-7d12-8e3b-6a7c8d9e0f1a"}, SECRET_KEY, "User not found or inactive"),
    ],
)
async def test_tokens_that_open_nothing(scene: Scene, changed: dict[str, object], key: str, detail: str):
    ann = await person(scene)
    claims = {**jwt.decode(ann.token, SECRET_KEY, algorithms=["HS256"]), **changed}
    token = jwt.encode({name: v for name, v in claims.items() if v is not None}, key, algorithm="HS256")
    answer = await replace(ann, token=token).get("/admin-users/me")
    assert refusal(answer) == (401, detail)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_without_signature_opens_nothing(scene: Scene):
    ann = await person(scene)
    claims = jwt.decode(ann.token, SECRET_KEY, algorithms=["HS256"])
    for token in (jwt.encode(claims, "", algorithm="none"), ann.token.rpartition(".")[0] + ".", "a.b.c"):
        assert refusal(await replace(ann, token=token).get("/admin-users/me")) == (401, "Invalid or expired token")


async def test_without_a_secret_key_nobody_logs_in_and_it_is_said(scene: Scene):
    from pydantic import SecretStr

    settings = scene.rt.settings.model_copy(update={"secret_key": SecretStr("")})
    async with _client(replace(scene.rt, settings=settings)) as client:
        answer = await login(client, "ann@acme.example")
        assert refusal(answer) == (503, "Admin users cannot log in: WAYBILL_SECRET_KEY is not set")
        unsigned = jwt.encode({"user_id": unique("x")}, "", algorithm="none")
        answer = await client.get("/api/admin-users/me", headers={"Authorization": f"Bearer {unsigned}"})
        assert refusal(answer) == (401, "Invalid or expired token")


async def test_what_is_over_is_swept(scene: Scene):
    ann = await person(scene)
    await login(at_new_address(scene), ann.email, "wrong password")
    await retention.rounds(scene.rt).run()
    assert await kept(scene, ann) == (1, 1)
    async with scene.later(DAY_S + 60) as rt:
        deleted = await retention.rounds(rt).run()
    assert min(deleted["admin_sessions"], deleted["login_failures"]) >= 1
    assert await kept(scene, ann) == (0, 0)


async def kept(scene: Scene, who: Person) -> tuple[int, int]:
    """Their sessions and failed logins."""
    found = await scene.row(
        """select (select count(*) from admin_sessions s join admin_users u on u.id = s.user_id
                    where u.email = :email) as sessions,
                  (select count(*) from login_failures where email = :email) as failures""",
        email=who.email,
    )
    return found.sessions, found.failures


async def test_an_unknown_address_costs_as_much_work_as_a_known_one():
    passwords = Passwords()
    stored = await passwords.hash(PASSWORD)
    assert stored.startswith("$argon2id$")
    assert await passwords.is_right(PASSWORD, stored)
    assert not await passwords.is_right(PASSWORD, None)
    started = time.process_time()
    await passwords.is_right("wrong password", stored)
    known = time.process_time() - started
    started = time.process_time()
    await passwords.is_right("wrong password", None)
    assert time.process_time() - started > known / 4, "a user that is not there is not answered without hashing"


async def test_the_loop_goes_on_while_passwords_are_hashed_and_too_many_are_turned_away():
    passwords = Passwords()
    hashing = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.hash(PASSWORD)
    turns = 0
    while not all(task.done() for task in hashing[:8]):
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10, "one for each that ends is all that a loop gets which hashes itself"
    for task in hashing[8:]:
        task.cancel()
    await asyncio.wait(hashing)


def _client(rt: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(rt), client=("10.255.0.1", 1))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://waybill")
