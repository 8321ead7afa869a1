"""The demo provider's embeddings: unit vectors made from a hash of the text, in OpenAI's shape, without any I/O."""

import base64
import hashlib
import sys
from array import array
from functools import lru_cache

from cli.demo_texts import BadRequest, Json, count_tokens, model_of, texts_of, whole

EMBEDDING_SIZES = {"text-embedding-3-large": 3072}
DEFAULT_EMBEDDING_SIZE = 1536
MOST_INPUTS = 2048


def embed(body: Json) -> tuple[Json, Json]:
    """Answer an embeddings request: (response without usage, usage). Equal texts get equal unit vectors."""
    model = model_of(body)
    texts = texts_of(body.get("input"), "input", MOST_INPUTS)
    if not all(texts):
        raise BadRequest("'input' cannot be an empty string", "input")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise BadRequest("'encoding_format' must be 'float' or 'base64'", "encoding_format")
    size = whole(body, "dimensions", 1, 4096) or EMBEDDING_SIZES.get(model, DEFAULT_EMBEDDING_SIZE)
    vectors = [unit_vector(text, size) for text in texts]
    data = [
        {"object": "embedding", "index": i, "embedding": one.tolist() if form == "float" else coded(one)}
        for i, one in enumerate(vectors)
    ]
    tokens = sum(count_tokens(text) for text in texts)
    return {"object": "list", "data": data, "model": model}, {"prompt_tokens": tokens, "total_tokens": tokens}


def coded(vector: "array[float]") -> str:
    """base64 of little-endian float32."""
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()


@lru_cache(maxsize=256)
def unit_vector(text: str, size: int) -> "array[float]":
    """A float32 vector of length one made from the text's hash."""
    raw = array("h", hashlib.shake_256(text.encode()).digest(size * 2))
    length = sum(number * number for number in raw) ** 0.5 or 1.0
    return array("f", [number / length for number in raw])
