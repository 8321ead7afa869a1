"""One key hammered through two api processes: any 60 s let in exactly its limit, and who was refused used nothing."""

import asyncio
from collections import Counter
from uuid import UUID

import httpx
import redis

from cli.spawn import free_port
from shared import redis_keys
from tests.programs import Program
from tests.stack import Stack
from tests.team import Team
from tests.waiting import until

TEAM_RPM, KEY_RPM, TPM = 40, 25, 1_000_000
US = 1_000_000
WINDOW_S, STEP_S = 60, 20


async def second_api(stack: Stack) -> str:
    """Another api process on the same database and Redis; its URL once it answers."""
    port = str(free_port())
    program = Program("api", stack.api.words, {**stack.env, "WAYBILL_PORT": port}, stack.folder / "api-2.log")
    program.start()
    stack.extra.append(program)
    url = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return (await client.get(f"{url}/health/readiness")).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

    await until(answers, "the second api is ready")
    return url


async def limited(stack: Stack) -> tuple[Team, UUID]:
    """A team whose one key is limited more than itself."""
    team = await stack.team(rpm_limit=TEAM_RPM, tpm_limit=TPM)
    [key] = await stack.sql(
        "update virtual_keys set rpm_limit = %s, tpm_limit = %s where team_id = %s returning id",
        KEY_RPM, TPM, team.team_id,
    )  # fmt: skip
    return team, key.id


async def hammered(team: Team, urls: list[str], each: int) -> list[httpx.Response]:
    """So many new jobs with a call through each process, at once."""
    body = {"team_id": team.team_id, "job_type": "test", "calls": [team.call("Capital of France?")]}
    paths = [f"{url}/api/jobs/create" for url in urls for _ in range(each)]
    return list(await asyncio.gather(*(team.client.post(path, json=body) for path in paths)))


def pass_time(client: redis.Redis, team: Team, key_id: UUID, seconds: int) -> None:
    """Redis's clock cannot be moved, so what was counted is made older."""
    for of in (None, key_id):
        for log in (redis_keys.request_log(team.team_id, of), redis_keys.token_log(team.team_id, of)):
            for member, _ in client.zrange(log, 0, -1, withscores=True):
                client.zincrby(log, -seconds * US, member)


def counted(client: redis.Redis, team: Team, key_id: UUID) -> list[int]:
    """Requests in the logs of team and key."""
    return [client.zcard(redis_keys.request_log(team.team_id, of)) for of in (None, key_id)]


async def test_two_processes_let_in_exactly_the_keys_limit_in_any_minute(stack: Stack) -> None:
    urls = [stack.api_url, await second_api(stack)]
    team, key_id = await limited(stack)
    let_in: list[tuple[int, int]] = []
    with redis.Redis.from_url(stack.env["WAYBILL_REDIS_URL"]) as client:
        for at_s in range(0, 2 * WINDOW_S + 1, STEP_S):
            answers = await hammered(team, urls, each=20 if at_s % WINDOW_S == 0 else 5)
            accepted = [answer for answer in answers if answer.status_code == httpx.codes.ACCEPTED]
            refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
            assert len(accepted) + len(refused) == len(answers), Counter(a.text for a in answers)
            let_in.append((at_s, len(accepted)))
            for answer in refused:
                assert answer.json() == {"detail": "Rate limit exceeded"}
                assert answer.headers["rate_limit_type"] == "requests"
                assert answer.headers["RateLimit"].startswith('"key-rpm";r=0;t=')
                assert int(answer.headers["Retry-After"]) >= 1
            in_window = sum(n for at, n in let_in if at > at_s - WINDOW_S)
            assert in_window == KEY_RPM, "the limit, and all of it"
            assert counted(client, team, key_id) == [KEY_RPM, KEY_RPM], "the refused used nothing of team or key"
            pass_time(client, team, key_id, STEP_S)

    rows = await stack.sql("select count(*) as n from jobs where team_id = %s", team.team_id)
    assert rows[0].n == sum(n for _, n in let_in), "the refused left nothing behind"


async def test_real_tokens_take_the_place_of_the_estimate_for_team_and_key(stack: Stack) -> None:
    team, key_id = await limited(stack)
    call = await team.submit("Capital of France?", max_tokens=500)
    found = await team.result(call)
    used = found["usage"]["total_tokens"]
    assert 0 < used < 500

    with redis.Redis.from_url(stack.env["WAYBILL_REDIS_URL"]) as client:

        async def settled() -> bool:
            logs = [redis_keys.tokens_taken(team.team_id, of) for of in (None, key_id)]
            return [int(client.hget(log, call.call_id) or 0) for log in logs] == [used, used]

        await until(settled, "what the call used is what is counted")
