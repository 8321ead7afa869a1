"""Streamed answers of odd shapes: without words, of several choices, endless, or with much written around each word."""

import asyncio

import orjson
import pytest

from tests.scene import TOKENS, Scene, Team, answer
from tests.workers.streams import (
    end_of,
    run,
    said,
    saying,
    streamed,
    texts,
)
from workers.provider import Answer, Sink


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=2)


async def test_an_answer_without_words_has_a_beginning_and_an_end(scene: Scene, team: Team):
    _, call_id, worker = await streamed(scene, team, saying())
    await run(worker, call_id)
    [opening] = await texts(scene, call_id)
    assert opening["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    assert len((await end_of(scene, call_id)).finishes) == 1


async def test_several_choices_each_have_their_finish(scene: Scene, team: Team):
    async def two(sink: Sink) -> Answer:
        for index in (0, 1):
            await sink.send(said(f"story {index}", index, role="assistant"))
        choices = [
            {"index": n, "message": {"role": "assistant", "content": f"story {n}"}, "finish_reason": reason}
            for n, reason in enumerate(("stop", "length"))
        ]
        return Answer(response=orjson.dumps({"choices": choices}).decode(), finish_reason="stop", usage=TOKENS)

    _, call_id, worker = await streamed(scene, team, two)
    await run(worker, call_id)
    finishes = [orjson.loads(text)["choices"][0] for text in (await end_of(scene, call_id)).finishes]
    assert [(choice["index"], choice["finish_reason"]) for choice in finishes] == [(0, "stop"), (1, "length")]


async def test_an_endless_answer_is_broken_off_and_that_costs_the_client_nothing(scene: Scene, team: Team):
    async def endless(sink: Sink) -> Answer:
        while True:
            await sink.send(said("x" * 1_000_000))

    job_id, call_id, worker = await streamed(scene, team, endless)
    await run(worker, call_id)
    shown = await team.read(job_id, str(call_id))
    assert (shown["error"]["code"], shown["cost_usd"]) == ("stream_interrupted", 0)


async def test_a_long_answer_is_not_cut_for_what_is_written_around_its_words(scene: Scene, team: Team):
    logprobs = {"content": [{"token": "x" * 100_000, "logprob": -0.1, "bytes": None, "top_logprobs": []}]}

    async def wordy(sink: Sink) -> Answer:
        for n in range(150):
            await sink.send([{"index": 0, "delta": {"content": f" {n}"}, "logprobs": logprobs}])
            await asyncio.sleep(0.001)
        return answer("long")

    _, call_id, worker = await streamed(scene, team, wordy)
    await run(worker, call_id)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in await texts(scene, call_id)] == [
        f" {n}" for n in range(150)
    ]
    assert (await end_of(scene, call_id)).first == 151
