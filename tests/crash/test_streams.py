"""Streams while something dies: a client sees one clean stream, or what it has and why there is no more."""

import asyncio
import signal
from typing import Any

import httpx

from cli.spawn import free_port
from tests.crash.following import Following, resumed, said, streamed, to_the_end
from tests.invariants import verify
from tests.programs import Program, alive
from tests.stack import Stack
from tests.team import Team
from tests.waiting import until

WORDS = 30
ASKED = f"{WORDS} words"
HALFWAY = {"fault": "hold", "chunks": 10}
PROMISED_S = 1.0
SEEN = 3
"""The last chunk of which a client remembers that it has it."""


async def whole(team: Team) -> str:
    """What an undisturbed call says."""
    answer = await team.result(await team.submit(ASKED))
    text: str = answer["response"]["content"]
    return text


async def attempts(team: Team, stream: Following) -> list[dict[str, Any]]:
    """The attempts of a call once it is final."""
    found: list[dict[str, Any]] = (await team.result(stream.call))["attempts"]
    return found


async def test_workers_die_and_what_has_begun_breaks_off_and_what_has_not_runs_again(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.script(HALFWAY, match=f"{ASKED} begun")
    await stack.provider.script({"fault": "hold", "chunks": 0}, match=f"{ASKED} waiting")

    waiting = asyncio.create_task(to_the_end(team, f"{ASKED} waiting"))
    async with streamed(team, f"{ASKED} begun") as begun:
        await begun.has(5)
        await stack.provider.asked(f"{ASKED} waiting", outcome="held")
        for pid in stack.worker_pids():
            stack.kill_worker_unit(pid)
        await begun.broke_off("stream_interrupted")

    assert text.startswith(begun.text)
    (lost,) = await attempts(team, begun)
    assert (lost["outcome"], lost["maybe_billed"], lost["usage_source"]) == ("unknown", True, "estimated")
    assert lost["completion_tokens"] > 0
    assert (await team.read(begun.call))["error"]["code"] == "stream_interrupted"
    assert await stack.provider.count(f"{ASKED} begun") == 1
    clean = await waiting
    await clean.ended_clean(text)
    assert [attempt["outcome"] for attempt in await attempts(team, clean)] == ["unknown", "succeeded"]
    assert clean.numbers[0] == 1
    await verify(stack)


async def test_a_stream_goes_on_at_another_api_when_its_own_is_killed(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    port = str(free_port())
    other = Program("api", stack.api.words, {**stack.env, "WAYBILL_PORT": port}, stack.folder / "api-2.log")
    other.start()
    stack.extra.append(other)
    await stack.provider.script(HALFWAY, match=team.model)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=team.client.headers) as client:
        await until(lambda: ready(client), "the other api is ready")
        async with streamed(team, ASKED) as first:
            await first.has(5)
            stack.api.kill()
            await first.end()
        stack.api.start()
        assert first.cut
        assert not first.done
        async with resumed(client, first.call, after=SEEN) as second:
            await second.has(2)
            await stack.provider.release()
            await second.end()

    assert second.numbers[0] == SEEN + 1
    assert said(first.chunks[:SEEN]) + second.text == text
    assert second.finishes == ["stop"]
    await stack.ready()
    assert [attempt["outcome"] for attempt in await attempts(team, first)] == ["succeeded"]
    await verify(stack)
    assert await team.charges() == [1, 1]


async def test_a_frozen_unit_has_lost_its_stream_when_it_wakes(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script(HALFWAY, match=team.model)

    async with streamed(team, ASKED) as stream:
        await stream.has(5)
        unit = await stack.unit_of(stream.call.call_id)
        stack.freeze(unit)
        await stack.provider.release()
        await stream.broke_off("stream_interrupted")
    stack.thaw(unit)
    async with resumed(team.client, stream.call) as replay:
        await replay.broke_off("stream_interrupted")

    assert replay.text.startswith(stream.text)
    (attempt,) = await attempts(team, stream)
    assert attempt["outcome"] in ("unknown", "abandoned"), "by when the unit has told what it cost"
    assert (attempt["maybe_billed"], attempt["usage_source"]) == (True, "estimated")
    assert await stack.provider.count(team.model) == 1
    await verify(stack)


async def test_postgres_restarted_in_mid_stream_is_not_noticed(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.script(HALFWAY, match=f"{ASKED} begun")
    await stack.provider.hold(f"{ASKED} waiting")
    waiting = asyncio.create_task(to_the_end(team, f"{ASKED} waiting"))

    async with streamed(team, f"{ASKED} begun") as stream:
        await stream.has(5)
        await stack.provider.asked(f"{ASKED} waiting", outcome="held")
        await stack.restart_postgres()
        await stack.provider.release()
        await stream.ended_clean(text)
    not_begun = await waiting

    await not_begun.ended_clean(text)
    assert len(await attempts(team, stream)) == len(await attempts(team, not_begun)) == 1
    await verify(stack)


async def test_redis_emptied_in_mid_stream_leaves_no_gap(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.script(HALFWAY, match=team.model)

    async with streamed(team, ASKED) as stream:
        await stream.has(5)
        stack.flush_redis()
        await stack.provider.release()
        await stream.ended_clean(text)
    async with resumed(team.client, stream.call) as replay:
        await replay.ended_clean(text)

    assert len(await attempts(team, stream)) == 1
    await verify(stack)


async def test_redis_frozen_in_mid_stream_ends_the_stream_but_not_the_call(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.script(HALFWAY, match=ASKED)

    await stack.provider.hold("never begun")
    waiting = asyncio.create_task(to_the_end(team, "never begun"))
    async with streamed(team, ASKED) as stream:
        await stream.has(5)
        await stack.provider.asked("never begun")
        stack.freeze_redis()
        await stack.provider.release()
        await stream.end()
    silent = await waiting
    stack.thaw_redis()

    assert stream.error or stream.text == text, "the whole answer, or an error that says that it is not"
    await silent.ended_clean("You said: never begun")
    read = await team.result(stream.call)
    assert read["response"]["content"] == text
    assert len(read["attempts"]) == 1
    await verify(stack)


async def test_without_redis_the_stored_answer_comes_as_one_chunk(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.hold(team.model)
    waiting = asyncio.create_task(to_the_end(team, ASKED))
    await stack.provider.asked(team.model, outcome="held")
    stack.kill_redis()
    await stack.provider.release()

    stream = await waiting

    await stream.ended_clean(text)
    assert len(stream.chunks) == 2
    await stack.start_redis()
    await verify(stack)


async def test_a_client_that_leaves_gets_its_call_finished_and_booked(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.script(HALFWAY, match=team.model)

    async with streamed(team, ASKED) as stream:
        await stream.has(5)
    await stack.provider.release()

    answer = await team.result(stream.call)
    assert answer["response"]["content"] == text
    assert [attempt["outcome"] for attempt in answer["attempts"]] == ["succeeded"]
    assert await stack.provider.count(team.model) == 2
    async with resumed(team.client, stream.call, after=3) as rest:
        await rest.end()
    assert rest.numbers[0] == 4
    await verify(stack)
    assert await team.charges() == [1, 1]


async def test_cancelling_closes_the_provider_and_ends_the_stream(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script(HALFWAY, match=team.model)

    async with streamed(team, ASKED) as stream:
        await stream.has(5)
        cancelled = await team.client.post(f"{stream.call.path}/cancel")
        await stream.broke_off("cancelled")

    assert cancelled.json()["status"] == "cancelled"
    await stack.provider.asked(team.model, outcome="disconnected", timeout_s=5)
    (request,) = await stack.provider.requests(team.model)
    (row,) = await stack.sql(
        "select extract(epoch from completed_at) as ended from calls where id = %s", stream.call.call_id
    )
    assert request["finished_at"] - float(row.ended) < PROMISED_S

    async def reported() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await team.read(stream.call))["attempts"]
        return [attempt for attempt in found if attempt["outcome"] != "in_progress"]

    (attempt,) = await until(reported, "the attempt is reported")
    assert (attempt["outcome"], attempt["maybe_billed"], attempt["usage_source"]) == ("abandoned", True, "estimated")
    await verify(stack)


async def test_a_draining_unit_lets_streams_end_and_cuts_what_does_not(stack: Stack) -> None:
    team = await stack.team()
    text = await whole(team)
    await stack.provider.script({**HALFWAY, "stream": {"every_s": 0.01}}, match=f"{ASKED} stuck")
    await stack.provider.script({"stream": {"every_s": 0.03}}, match=f"{ASKED} going")

    async with streamed(team, f"{ASKED} stuck") as stuck, streamed(team, f"{ASKED} going") as going:
        await stuck.has(5)
        await going.has(1)
        for pid in (pids := stack.worker_pids()):
            stack.kill_worker_unit(pid, signal.SIGTERM)
        await going.ended_clean(text)
        await stuck.broke_off("stream_interrupted")

    await until(lambda: gone(pids), "the units end")
    (cut,) = await attempts(team, stuck)
    assert (cut["outcome"], cut["maybe_billed"], cut["usage_source"]) == ("abandoned", True, "estimated")
    assert [attempt["outcome"] for attempt in await attempts(team, going)] == ["succeeded"]
    assert await stack.provider.count(f"{ASKED} stuck") == 1
    await verify(stack)


async def ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/readiness")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))
