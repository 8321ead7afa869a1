"""From whatever a library raised, and what was seen on the wire, to a ProviderError.

the provider answered 4xx/5xx -> failed, by status and the body's code
no byte was sent              -> failed
everything else               -> unknown: the provider may be working, or has billed

An error inside of a stream that began well is unknown too, but keeps the code it has by its words.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from shared import clock
from shared.states import Outcome
from workers.provider import Again, ProviderError
from workers.provider_http import Exchange
from workers.scrub import scrub

NEVER_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)  # fmt: skip
REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid")
MAX_RETRY_AFTER_S = 3600.0
MAX_LINKS = 20

QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "account_deactivated"}
CONTEXT_CODES = {"context_length_exceeded", "string_above_max_length"}
POLICY_CODES = {"content_policy_violation", "content_filter", "invalid_prompt"}
# litellm knows more providers' words for these two than there are codes.
CONTEXT_CLASS, POLICY_CLASS = "ContextWindowExceededError", "ContentPolicyViolationError"

TOLD_IN_STREAMS = {401, 402, 403, 429}
# What providers call, in `type` or `code`, what a status would say.
STATUS_WORDS = (
    ("rate_limit", 429), ("too_many", 429), ("resource_exhausted", 429), ("throttl", 429), ("overloaded", 529),
    ("auth", 401), ("api_key", 401), ("permission", 403), ("not_found", 404), ("timeout", 408), ("invalid", 400),
    ("bad_request", 400),
)  # fmt: skip

LIBRARY_WORDS = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)\b\s*[:-]\s*)+")
LIBRARY_ADVICE = re.compile(r"(?s)(?:, for model=|\s*To drop these, set|\s*Received Model Group=).*$")

Ruling = tuple[str, Again]


def classify(error: Exception, exchange: Exchange, secrets: Iterable[str]) -> ProviderError:
    """What this failure means. Nothing of `error` is kept: its frames and texts hold keys and prompts."""
    links = chain(error)
    response = next((link.response for link in links if isinstance(link, httpx.HTTPStatusError)), None)
    status = exchange.status if exchange.status is not None or response is None else response.status_code
    headers = exchange.headers or _headers(error, response)
    code, again, outcome = _ruling(links, exchange, status)
    known = tuple(secrets)
    return ProviderError(
        code,
        outcome=outcome,
        again=again,
        message=scrub(words(links, response), known) or None,
        http_status=status,
        retry_after_s=retry_after_s(headers),
        provider_request_id=request_id(headers, known),
    )


def in_band(said: Any, exchange: Exchange, secrets: Iterable[str]) -> ProviderError:
    """What an error in the stream of an answer means. said: the error object, or the text in its place."""
    details = _details(said) if isinstance(said, dict) else {"message": said}
    codes = [str(details[name]) for name in ("code", "type", "status") if details.get(name)]
    code, again = _answered(_told_status(codes), codes, ())
    known = tuple(secrets)
    message = details.get("message")
    return ProviderError(
        code,
        outcome=Outcome.UNKNOWN,
        again=again,
        message=(scrub(message, known) or None) if isinstance(message, str) else None,
        http_status=exchange.status,
        provider_request_id=request_id(exchange.headers, known),
    )


def _told_status(codes: list[str]) -> int:
    """The status that an error would have had; 500 where nothing tells."""
    numbers = [int(code) for code in codes if code.isdigit()]
    told = next((number for number in numbers if 400 <= number < 600), None)
    words = " ".join(codes).lower()
    return told or next((status for word, status in STATUS_WORDS if word in words), 500)


def _ruling(links: list[BaseException], exchange: Exchange, status: int | None) -> tuple[str, Again, Outcome]:
    codes, names = _codes(links), {base.__name__ for base in type(links[0]).__mro__}
    if status is not None and status >= 300:
        return *_answered(status, codes, names), Outcome.FAILED
    if status is not None and (told := _mid_stream_status(links)) is not None:
        return *_answered(told, codes, names), Outcome.UNKNOWN
    timed_out = any(isinstance(link, httpx.TimeoutException) or type(link).__name__ == "Timeout" for link in links)
    if status is None and _never_sent(links, exchange):
        local = None if _on_the_wire(links) else _local_status(links[0])
        return *(("provider_error", "same") if local is None else _answered(local, codes, names)), Outcome.FAILED
    if status is None and exchange.is_ours and not exchange.started and not _on_the_wire(links):
        # The library could not make a request of it, and would not the next time.
        return "provider_bad_request", "next", Outcome.FAILED
    return "provider_timeout" if timed_out else "provider_error", "same", Outcome.UNKNOWN


def _answered(status: int, provider_codes: Iterable[str], names: Iterable[str]) -> Ruling:
    """provider_codes: the words of the provider's error. names: of the classes of the library's."""
    codes = set(provider_codes)
    if codes & QUOTA_CODES or status in {401, 402, 403}:
        return "provider_auth", "next"
    if status == 429:
        return "provider_rate_limit", "same"
    if status in {408, 409} or status >= 500:
        return "provider_error", "same"
    if status == 404 or status < 400:
        return "provider_error", "next"
    if codes & POLICY_CODES or POLICY_CLASS in names:
        return "content_policy_violation", "never"
    if codes & CONTEXT_CODES or CONTEXT_CLASS in names:
        return "context_length_exceeded", "next"
    return "provider_bad_request", "never"


def _mid_stream_status(links: list[BaseException]) -> int | None:
    """What the library says of an error inside of a stream that began well, where that is more than a cut."""
    return next((found for link in links if (found := getattr(link, "status_code", None)) in TOLD_IN_STREAMS), None)


def _never_sent(links: list[BaseException], exchange: Exchange) -> bool:
    """Certain only if the connection failed, our session saw no byte leave, or the library refused by itself."""
    if exchange.sent:
        return False
    if exchange.started or any(isinstance(link, NEVER_SENT) for link in links):
        return True
    return not _on_the_wire(links) and _local_status(links[0]) is not None


def _on_the_wire(links: list[BaseException]) -> bool:
    return any(isinstance(link, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | OSError) for link in links)


def _local_status(error: BaseException) -> int | None:
    """The status of a refusal the library made up itself; its own 408 and 5xx stand for anything."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status < 500 and status != 408 else None


def chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from, outermost first."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links and len(links) < MAX_LINKS:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def words(links: list[BaseException], response: httpx.Response | None) -> str:
    """The provider's own sentence, else the library's without its own names. Not scrubbed."""
    for body in (*(getattr(link, "body", None) for link in links), _json(response)):
        details = _details(body)
        if isinstance(details.get("message"), str) and details["message"].strip():
            return str(details["message"])
    if response is None and not _local_status(links[0]):
        return ""
    text = str(getattr(links[0], "message", "") or links[0])
    return LIBRARY_ADVICE.sub("", LIBRARY_WORDS.sub("", text))


def _codes(links: list[BaseException]) -> list[str]:
    bodies = [getattr(link, "body", None) for link in links]
    bodies += [_json(link.response) for link in links if isinstance(link, httpx.HTTPStatusError)]
    found = [_details(body).get(name) for body in bodies for name in ("code", "type")]
    return [code for code in found if isinstance(code, str)]


def _details(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        return {}
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body


def _json(response: httpx.Response | None) -> Any:
    try:
        return None if response is None else orjson.loads(response.content)
    except (orjson.JSONDecodeError, httpx.StreamError):
        return None


def _headers(error: Exception, response: httpx.Response | None) -> Mapping[str, str]:
    """Of providers that do not use our session; for some of them litellm keeps the headers in a place of its own."""
    for headers in (getattr(error, "litellm_response_headers", None), getattr(response, "headers", None)):
        if headers:
            return httpx.Headers(headers)
    return {}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, from a number or an HTTP date; never negative, never above an hour."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - clock.now()).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None  # noqa: PLR0124 - not a number


def request_id(headers: Mapping[str, str], secrets: Iterable[str]) -> str | None:
    """The provider's own id of the request, by which its support finds it."""
    found = next((headers[name] for name in REQUEST_ID_HEADERS if headers.get(name)), None)
    return scrub(found, secrets)[:200] if found else None
