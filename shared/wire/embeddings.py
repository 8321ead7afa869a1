"""The answer of an embedding, made of the stored text as it is: the provider's digits stay, and no number is parsed
that need not be.
"""

import asyncio
import base64
import re
import sys
from array import array
from collections.abc import Iterator

import orjson

from shared import money
from shared.wire.answers import Completed

VECTOR = re.compile(r'"embedding":\s*\[([^\]]*)\]')
"""One vector of the stored answer; they are in the order of the inputs, and hold numbers only."""
SMALL_CHARS = 50_000
"""Up to here writing an answer takes less than a millisecond: about two vectors."""


async def embeddings(call: Completed, *, as_base64: bool) -> bytes:
    """The JSON of a completed embedding. Big ones are written beside the event loop. Once erased, it has no data."""
    if call.response is None or len(call.response) <= SMALL_CHARS:
        return written(call, as_base64=as_base64)
    return await asyncio.to_thread(written, call, as_base64=as_base64)


def written(call: Completed, *, as_base64: bool) -> bytes:
    """The same at once, however big it is."""
    data = ",".join(_data(call.response or "", as_base64))
    model, used = orjson.dumps(call.model).decode(), orjson.dumps(_usage(call)).decode()
    return f'{{"object":"list","data":[{data}],"model":{model},"usage":{used}}}'.encode()


def packed(numbers: str) -> str:
    """Base64 of these comma-separated numbers as little-endian float32."""
    floats = array("f", orjson.loads(f"[{numbers}]"))
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def numbers(stored: str) -> str:
    """The vectors of a stored answer as JSON, comma-separated."""
    return ",".join(_data(stored, as_base64=False))


def _data(stored: str, as_base64: bool) -> Iterator[str]:
    # One vector at a time, so that the event loop gets its turns meanwhile.
    for index, found in enumerate(VECTOR.finditer(stored)):
        value = f'"{packed(found[1])}"' if as_base64 else f"[{found[1]}]"
        yield f'{{"object":"embedding","index":{index},"embedding":{value}}}'


def _usage(call: Completed) -> dict[str, int | float]:
    return {
        "prompt_tokens": call.prompt_tokens or 0,
        "total_tokens": call.total_tokens or 0,
        "cost": money.usd(call.client_cost_nanousd),
    }
