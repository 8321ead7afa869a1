"""One logged request to the demo provider on its way to its answer, with the fault it was given."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo_answers import BadRequest, Json, complete, next_id, part, usage_block
from cli.demo_bodies import Answer, completion_answer, error_body, error_event, json_answer, stream_answer
from cli.demo_embeddings import embed
from cli.demo_faults import Desk, Entry, Step
from cli.demo_wire import Headers, Wire

EMBEDDINGS = "/v1/embeddings"
WRONG_KEY = (b"authorization", b"Bearer sk-wrong")
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(slots=True)
class Exchange:
    """One logged request on its way to its answer; raises ClientGone when the client hangs up first."""

    desk: Desk
    wire: Wire
    entry: Entry
    body: Json | None

    async def run(self) -> None:
        step = self.desk.next_step(self.entry) if self.desk.scripts else None
        await self._wait(step)
        if step is not None and step.fault == "hang":
            await self.wire.gone()
        if step is not None and step.fault == "reset":
            await self.wire.reset()
            self.desk.close(self.entry, "cut")
            return
        answer = self._answer(step)
        self.entry.status = answer.status
        if step is not None and step.fault in ("cut", "stall", "stream_error", "drip"):
            await self._break_off(answer, step)
        else:
            await self._deliver(answer, answer.pieces, self.desk.pace.chunk_seconds if answer.streamed else 0)

    async def _wait(self, step: Step | None) -> None:
        if (limit := self.desk.held(self.entry)) is not None:
            try:
                await self.wire.pause(limit)
            finally:
                self.desk.let_go(limit)
            self.entry.outcome = "pending"
        seconds = self.desk.pace.seconds
        if step is not None:
            seconds += step.after_s + (step.seconds if step.fault == "delay" else 0)
        if seconds:
            await self.wire.pause(asyncio.timeout(seconds))

    def _answer(self, step: Step | None) -> Answer:
        fault = step.fault if step is not None else "ok"
        if WRONG_KEY in self.wire.scope["headers"]:
            return json_answer(error_body(401, "Incorrect API key provided: sk-wrong."), 401)
        if step is not None and fault == "status":
            content = step.body if step.body is not None else error_body(step.status, f"Scripted status {step.status}.")
            return json_answer(content, step.status, step.headers)
        if fault == "garbage":
            return Answer(200, [HTML], "text/html")
        if fault == "empty":
            return Answer(200, [b""])
        if self.body is None:
            return json_answer(error_body(400, "We could not parse the JSON body of your request."), 400)
        try:
            return self._embed(self.body, step) if self.entry.path == EMBEDDINGS else self._complete(self.body, step)
        except BadRequest as error:
            return json_answer(error_body(400, error.message, error.param), 400)

    def _complete(self, body: Json, step: Step | None) -> Answer:
        fault = step.fault if step is not None else "ok"
        done = complete(body, self.entry.message, step.text if step is not None and fault == "content" else None)
        if step is not None and fault == "usage":
            done.usage = usage_block(
                step.prompt_tokens, step.completion_tokens, step.cached_tokens, step.reasoning_tokens
            )
        self.entry.usage = done.usage
        if fault == "no_usage":
            done.usage = None
        if fault == "no_finish":
            done.finish_reason = None
        if body.get("stream"):
            return stream_answer(done, include_usage=bool(part(body, "stream_options").get("include_usage")))
        return completion_answer(done)

    def _embed(self, body: Json, step: Step | None) -> Answer:
        content, usage = embed(body)
        if step is not None and step.fault == "usage":
            usage = {"prompt_tokens": step.prompt_tokens, "total_tokens": step.prompt_tokens}
        self.entry.usage = usage
        if step is None or step.fault != "no_usage":
            content["usage"] = usage
        return json_answer(content)

    def _headers(self, answer: Answer) -> Headers:
        took_ms = int((time.time() - self.entry.arrived_at) * 1000)
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"x-request-id", next_id("req_").encode()),
            (b"openai-processing-ms", b"%d" % took_ms),
        ]
        if not answer.streamed:
            headers.append((b"content-length", b"%d" % len(answer.pieces[0])))
        return headers + [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]

    async def _deliver(self, answer: Answer, pieces: Sequence[bytes], every_s: float) -> None:
        await self.wire.start(answer.status, self._headers(answer))
        for piece in pieces[:-1]:
            await self.wire.write(piece, last=False)
            if every_s:
                await self.wire.pause(asyncio.timeout(every_s))
        await self.wire.write(pieces[-1], last=True)
        self.desk.close(self.entry, "answered")

    async def _break_off(self, answer: Answer, step: Step) -> None:
        if step.fault == "drip":
            whole = b"".join(answer.pieces)
            slices = [whole[at : at + step.size_bytes] for at in range(0, len(whole), step.size_bytes)]
            await self._deliver(answer, slices or [b""], step.every_s)
            return
        sent = first_part(answer, step.chunks)
        if step.fault == "stream_error" and answer.streamed:
            await self._deliver(answer, [*sent, error_event("The server had an error.")], 0)
            return
        await self.wire.start(answer.status, self._headers(answer))
        for piece in sent:
            await self.wire.write(piece, last=False)
        if step.fault == "stall":
            await self.wire.gone()
        await self.wire.cut()
        self.desk.close(self.entry, "cut")


def first_part(answer: Answer, chunks: int | None) -> list[bytes]:
    """The stream's first chunks, or the first half of a body."""
    if not answer.streamed:
        return [answer.pieces[0][: len(answer.pieces[0]) // 2]]
    return answer.pieces[: min(chunks or len(answer.pieces) // 2, len(answer.pieces) - 1)]
