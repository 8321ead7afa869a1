"""One logged request to the demo provider on its way to its answer, with the fault it was given."""

import asyncio
import time
from dataclasses import dataclass

from cli.demo_answers import Reply, usage_block
from cli.demo_bodies import Answer, error_body, json_answer, whole_answer
from cli.demo_chat import chat
from cli.demo_completions import text_completion
from cli.demo_delivery import Delivery
from cli.demo_desk import Desk, Entry
from cli.demo_embeddings import embed
from cli.demo_faults import NOW, Say, Step
from cli.demo_stream import stream_answer
from cli.demo_texts import BadRequest, Json, part
from cli.demo_wire import Wire

COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"
WRONG_KEY = (b"authorization", b"Bearer sk-wrong")
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
NO_STEP = Step()


@dataclass(slots=True)
class Exchange:
    """One logged request on its way to its answer; raises ClientGone when the client hangs up first."""

    desk: Desk
    wire: Wire
    entry: Entry
    body: Json | None

    async def run(self) -> None:
        step = (self.desk.next_step(self.entry) if self.desk.scripts else None) or NO_STEP
        await self._wait(step)
        if step.fault == "hang":
            await self.wire.gone()
        if step.fault == "reset" and step.chunks is None:
            await self.wire.reset()
            self.desk.close(self.entry, "cut")
            return
        answer = self._answer(step)
        self.entry.status = answer.status
        await Delivery(self.desk, self.wire, self.entry, answer, step).run()

    async def _wait(self, step: Step) -> None:
        if (limit := self.desk.held(self.entry)) is not None:
            try:
                await self.wire.pause(limit)
            finally:
                self.desk.let_go(self.entry, limit)
        seconds = self.desk.pace.seconds + step.after_s + (step.seconds if step.fault == "delay" else 0)
        if seconds:
            await self.wire.pause(asyncio.timeout(seconds))

    def _answer(self, step: Step) -> Answer:
        if WRONG_KEY in self.wire.scope["headers"]:
            return json_answer(error_body(401, "Incorrect API key provided: sk-wrong."), 401)
        if step.fault == "status":
            content = step.body if step.body is not None else error_body(step.status, f"Scripted status {step.status}.")
            return json_answer(content, step.status, step.headers)
        if step.fault == "garbage":
            return Answer(200, [HTML], "text/html")
        if step.fault == "empty":
            return Answer(200, [b""])
        if self.body is None:
            return json_answer(error_body(400, "We could not parse the JSON body of your request."), 400)
        try:
            return self._embed(self.body, step) if self.entry.path == EMBEDDINGS else self._complete(self.body, step)
        except BadRequest as error:
            return json_answer(error_body(400, error.message, error.param), 400)

    def _complete(self, body: Json, step: Step) -> Answer:
        say, streamed = step.said, bool(body.get("stream"))
        if say is not None and say.text is not None and not streamed:
            say = say.model_copy(update={"text": say.text.replace(NOW, f"{time.time():.6f}")})
        reply = self._reply(body, say)
        if step.fault == "usage":
            reply.usage = usage_block(
                step.prompt_tokens, step.completion_tokens, step.cached_tokens, step.reasoning_tokens
            )
        self.entry.usage = reply.usage
        if step.fault == "no_usage":
            reply.usage = None
        if step.fault == "no_finish":
            for choice in reply.choices:
                choice.finish_reason = None
        if not streamed:
            return whole_answer(reply)
        return stream_answer(reply, step.stream, include_usage=bool(part(body, "stream_options").get("include_usage")))

    def _reply(self, body: Json, say: Say | None) -> Reply:
        return text_completion(body, say) if self.entry.path == COMPLETIONS else chat(body, self.entry.message, say)

    def _embed(self, body: Json, step: Step) -> Answer:
        content, usage = embed(body)
        if step.fault == "usage":
            usage = {"prompt_tokens": step.prompt_tokens, "total_tokens": step.prompt_tokens}
        self.entry.usage = usage
        if step.fault != "no_usage":
            content["usage"] = usage
        return json_answer(content)
