"""A line of a batch's output or error file, as OpenAI writes them; `results` shows the same lines while it runs.

{"id", "custom_id", "response": {"status_code", "request_id", "body"} | null, "error": {"code", "message"} | null,
 "cost_usd", "call_id"}

A line that ran has the response that its request would have had alone, of whatever status. One that was cut off by the
end of its batch has none, but an `error`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson

from shared import log, money
from shared.batch_results import EndedLine
from shared.failures import message
from shared.states import CallState, Endpoint
from shared.wire import answers, embeddings
from shared.wire.problems import failed_call

logger = log.get(__name__)

SMALL_CHARS = embeddings.SMALL_CHARS
"""An answer longer than this is written beside the event loop."""
TURN_CHARS = 200_000
"""Written without a pause: some milliseconds."""
LINE_CHARS = 1000
"""What any line counts as at least."""

EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
CANCELLED = {"code": "batch_cancelled", "message": "This request was cancelled before it was completed."}
ERASED = {"code": "answer_erased", "message": "This request was completed, but its answer is no longer stored."}
UNREADABLE = {"code": "answer_unreadable", "message": "This request was completed, but its answer cannot be shown."}


async def written(page: Iterable[EndedLine]) -> AsyncIterator[tuple[EndedLine, bytes]]:
    """Each line with its bytes; the event loop gets its turn in between."""
    since_turn = 0
    for found in page:
        size = LINE_CHARS + len(found.response or "")
        if size > SMALL_CHARS:
            yield found, await asyncio.to_thread(line, found)
            continue
        since_turn += size
        if since_turn > TURN_CHARS:
            await asyncio.sleep(0)
            since_turn = 0
        yield found, line(found)


def line(found: EndedLine) -> bytes:
    """One line of the output file, or of the error file where it did not succeed, with its line feed."""
    response, error = _outcome(found)
    shown = {
        "id": f"batch_req_{found.id.hex}",
        "custom_id": found.custom_id,
        "response": response,
        "error": error,
        "cost_usd": money.usd(found.client_cost_nanousd),
        "call_id": str(found.id),
    }
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def _outcome(found: EndedLine) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    """`response` and `error`; one of them is None."""
    if found.state == CallState.COMPLETED:
        return _completed(found)
    if found.state == CallState.CANCELLED:
        return None, CANCELLED
    if found.error_code == "deadline_exceeded":
        return None, EXPIRED
    code = found.error_code or "internal_error"
    problem = failed_call(code, found.error_message or message(code), provider=found.provider)
    return _response(found, problem.status, problem.body), None


def _completed(found: EndedLine) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    if found.response is None:
        return None, ERASED
    try:
        return _response(found, 200, _answer(found)), None
    except Exception:
        # Else one answer that was stored as nobody foresaw would keep its batch from ever being final.
        logger.exception("batch_line_unreadable", call_id=str(found.id))
        return None, UNREADABLE


def _answer(found: EndedLine) -> dict[str, Any] | orjson.Fragment:
    """The body that this request would have had alone."""
    match found.endpoint:
        case Endpoint.EMBEDDING:
            return orjson.Fragment(embeddings.written(found, as_base64=found.as_base64))
        case Endpoint.COMPLETION:
            return answers.text_completion(found)
    return answers.chat_completion(found)


def _response(found: EndedLine, status: int, body: dict[str, Any] | orjson.Fragment) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_{found.id.hex}", "body": body}
