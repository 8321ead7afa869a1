"""The routes of the gateway that ask a model, in OpenAI's dialect."""

from starlette.requests import Request

from api.auth import Caller
from api.desk import Desk
from api.event_stream import EventStream
from api.gateway.calls import answered
from api.gateway.face import GATEWAY
from api.http import endpoint
from api.once import Once
from api.replies import Reply
from api.wire.completions import ChatCompletionOut, EmbeddingsOut, TextCompletionOut
from shared.calls import Call
from shared.runtime import Runtime
from shared.wire import answers
from shared.wire.embeddings import embeddings as written_embeddings
from shared.wire.gateway import ChatIn, CompletionIn, EmbeddingIn


@endpoint("team", answers=ChatCompletionOut, face=GATEWAY)
async def chat_completions(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, body: ChatIn, once: Once
) -> Reply | EventStream:
    """Ask a model to go on with a conversation; with `stream`, its answer comes as server-sent events."""

    async def written(call: Call) -> dict[str, object]:
        return answers.chat_completion(call)

    return await answered(rt, desk, request, caller, body, once, written)


@endpoint("team", answers=TextCompletionOut, face=GATEWAY)
async def completions(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, body: CompletionIn, once: Once
) -> Reply | EventStream:
    """Ask a model to go on with a text, or with several; with `stream`, its answer comes as server-sent events."""

    async def written(call: Call) -> dict[str, object]:
        return answers.text_completion(call)

    return await answered(rt, desk, request, caller, body, once, written)


@endpoint("team", answers=EmbeddingsOut, face=GATEWAY)
async def embeddings(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, body: EmbeddingIn, once: Once
) -> Reply | EventStream:
    """Ask a model for the vectors of texts: numbers, or base64 of little-endian float32."""

    async def written(call: Call) -> bytes:
        return await written_embeddings(call, as_base64=body.encoding_format == "base64")

    return await answered(rt, desk, request, caller, body, once, written)
