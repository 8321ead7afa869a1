"""`Idempotency-Key`: the first request of a key acts and its 2xx is kept; a repeat is answered with it.

no row       act; the effect's transaction claims the key
a call       failed or cancelled: the key is free
an answer    the same status and body again
a call       completed: rebuilt from its row; unfinished: 409
a job        rebuilt by the handler
a delivery   rebuilt by the handler: the repeat of a test waits for the same attempt
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Caller
from api.body import read_body
from api.replies import Reply, rendered
from shared import idempotency
from shared.db import Tx
from shared.errors import BadRequest, Conflict, IdempotencyMismatch
from shared.idempotency import Claim, Kept, Repeated
from shared.json_text import parse_json
from shared.runtime import Runtime
from shared.sealer import CannotOpen, Sealer
from shared.states import CallState

KEY = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED = {"Idempotent-Replayed": "true"}
MISMATCH = "Idempotency-Key was already used with a different request"

Answer = TypeVar("Answer", bound=dict[str, Any] | list[Any] | Reply)


@dataclass(frozen=True, kw_only=True)
class Once:
    """What a POST handler knows of its key; without one nothing here has an effect.

    job_id, call_id, delivery_id: what an earlier request with this key made or changed, when its answer is to be
        rebuilt.
    """

    rt: Runtime
    scope: bytes | None = None
    request: bytes = b""
    job_id: UUID | None = None
    call_id: UUID | None = None
    delivery_id: UUID | None = None

    @property
    def is_repeat(self) -> bool:
        """Whether the handler is asked to rebuild an answer."""
        return self.job_id is not None or self.call_id is not None or self.delivery_id is not None

    def claim(self, *, job_id: UUID | None = None, call_id: UUID | None = None, answer: Any = None) -> Claim | None:
        """What the effect's transaction has to take, by `idempotency.claim`; None without a key."""
        if self.scope is None:
            return None
        status, sealed = (None, None) if answer is None else self._sealed(answer)
        return Claim(
            scope=self.scope, request=self.request, job_id=job_id, call_id=call_id, status=status, answer_sealed=sealed
        )

    async def keep(self, tx: Tx, answer: Answer) -> Answer:
        """Keep the answer in the transaction of the effect, as its last statement; returns it. Raises Repeated."""
        wanted = self.claim(answer=answer)
        if wanted is not None and not await idempotency.claim(tx, [wanted]):
            raise Repeated
        return answer

    async def take(self, tx: Tx, *, job_id: UUID | None = None, delivery_id: UUID | None = None) -> None:
        """Take the key in the transaction of what is made or changed: a repeat reads its answer there.

        Raises Repeated.
        """
        wanted = self.claim(job_id=job_id)
        if wanted is not None and not await idempotency.claim(tx, [replace(wanted, delivery_id=delivery_id)]):
            raise Repeated

    async def store(self, answer: Answer, *, call_id: UUID | None = None) -> Answer:
        """Keep an answer whose effect is committed, or that had none; returns it. call_id: the call it speaks of."""
        wanted = self.claim(call_id=call_id, answer=answer)
        if wanted is not None and not self.is_repeat:
            async with self.rt.db.hot_transaction() as tx:
                await idempotency.answer(tx, wanted)
        return answer

    def _sealed(self, answer: Any) -> tuple[int, bytes]:
        reply = answer if isinstance(answer, Reply) else Reply(body=answer)
        # What is left of a limit is true for one moment only.
        headers = {name: value for name, value in reply.headers.items() if "ratelimit" not in name.lower()}
        kept = {"headers": headers, "body": rendered(reply.body).decode()}
        return reply.status, self.rt.sealer.seal(orjson.dumps(kept).decode(), purpose=_purpose(self.scope or b""))


class Received(Protocol):
    """A body that an endpoint took in as it came (`endpoint(reads=...)`), too long to be kept in memory.

    fingerprint: what an Idempotency-Key stands for instead of the JSON of other bodies.
    """

    @property
    def fingerprint(self) -> bytes:
        """A digest of all that the client said in the body."""

    async def discard(self) -> None:
        """Take away what was stored of it unless the handler has kept it; called at the end of every request."""


def key_of(request: Request) -> str | None:
    """The Idempotency-Key without its quotes. Raises BadRequest."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not KEY.fullmatch(key):
        raise BadRequest("Invalid Idempotency-Key")
    return key


async def open_once(rt: Runtime, caller: Caller, request: Request, received: Received | None = None) -> Once:
    """The key of this request, if it has one that counts. Raises BadRequest, Invalid (body), BodyTooLarge.

    received: a body that is not read as JSON.
    """
    scope = _scope(caller, request)
    if scope is None:
        return Once(rt=rt)
    if received is None:
        raw = await read_body(request, rt.settings.max_body_bytes)
        body = orjson.dumps(parse_json(raw or b"{}"), option=orjson.OPT_SORT_KEYS)
    else:
        body = received.fingerprint
    # Into which job a call of the gateway goes is said there, and part of what is asked.
    named = request.headers.get("x-job-id")
    asked = [request.url.query.encode(), body, *([] if named is None else [named.encode()])]
    return Once(rt=rt, scope=scope, request=hashlib.sha256(b"\x00".join(asked)).digest())


async def is_repeat(rt: Runtime, caller: Caller, request: Request) -> bool:
    """Whether a request with this one's key had an effect before; known without the body. Raises BadRequest."""
    scope = _scope(caller, request)
    if scope is None:
        return False
    async with rt.db.hot_statement() as tx:
        return await idempotency.find(tx, scope) is not None


async def repeated(once: Once) -> Once | Response:
    """What an earlier request with this key left: its answer, or what to rebuild it from, or nothing (`once` itself).

    Raises Invalid (the key was used with another request), Conflict (that one is still running).
    """
    if once.scope is None:
        return once
    async with once.rt.db.hot_statement() as tx:
        kept = await idempotency.find(tx, once.scope)
    if kept is None:
        return once
    if kept.call_id is not None and kept.call_state in (CallState.FAILED, CallState.CANCELLED):
        async with once.rt.db.hot_transaction() as tx:
            await idempotency.free(tx, once.scope, kept.call_id)
        return once
    if kept.request != once.request:
        raise IdempotencyMismatch(
            [{"loc": ["header", "idempotency-key"], "msg": MISMATCH, "type": "value_error.idempotency_mismatch"}]
        )
    if kept.answer_sealed is not None:
        return _replayed(once.rt.sealer, once.scope, kept)
    if kept.call_id is not None and kept.call_state != CallState.COMPLETED:
        raise still_running()
    return replace(once, job_id=kept.job_id, call_id=kept.call_id, delivery_id=kept.delivery_id)


def still_running() -> Conflict:
    """The first request with this key has no final answer yet."""
    return Conflict("A request with this Idempotency-Key is still running", headers={"Retry-After": "1"})


def _scope(caller: Caller, request: Request) -> bytes | None:
    """Whose key it is, and of which route; None where there is none that counts. Raises BadRequest."""
    key = key_of(request)
    if key is None or request.method != "POST" or caller.principal is None:
        return None
    scope = f"{caller.principal}\0{request.method}\0{request.url.path}\0{key}"
    return hashlib.sha256(scope.encode()).digest()


def _replayed(sealer: Sealer, scope: bytes, kept: Kept) -> Response:
    try:
        stored = orjson.loads(sealer.open(kept.answer_sealed or b"", purpose=_purpose(scope)))
    except CannotOpen:
        raise Conflict("The answer kept for this Idempotency-Key can no longer be read") from None
    headers = {**stored["headers"], **REPLAYED}
    return Response(stored["body"], status_code=kept.status or 200, headers=headers, media_type="application/json")


def _purpose(scope: bytes) -> str:
    return f"idempotency_keys.answer:{scope.hex()}"
