"""The demo provider's embeddings: unit vectors made from a hash of the text, in OpenAI's shape, without any I/O."""

import base64
import hashlib
from array import array
from functools import lru_cache

from cli.demo_answers import BadRequest, Json, count_tokens, whole

EMBEDDING_SIZES = {"text-embedding-3-large": 3072}
DEFAULT_EMBEDDING_SIZE = 1536


def embed(body: Json) -> tuple[Json, Json]:
    """Answer an embeddings request: (response without usage, usage). Equal texts get equal unit vectors."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("you must provide a model parameter", "model")
    texts = _embedding_inputs(body.get("input"))
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise BadRequest("'encoding_format' must be 'float' or 'base64'", "encoding_format")
    size = whole(body, "dimensions", 1, 4096) or EMBEDDING_SIZES.get(body["model"], DEFAULT_EMBEDDING_SIZE)
    vectors = [unit_vector(text, size) for text in texts]
    shown = [v.tolist() if form == "float" else base64.b64encode(v.tobytes()).decode() for v in vectors]
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(shown)]
    tokens = sum(count_tokens(text) for text in texts)
    return {"object": "list", "data": data, "model": body["model"]}, {"prompt_tokens": tokens, "total_tokens": tokens}


def _embedding_inputs(given: object) -> list[str]:
    one_token_array = isinstance(given, list) and given and all(isinstance(one, int) for one in given)
    if isinstance(given, str) or one_token_array:
        given = [given]
    taken = isinstance(given, list) and all(isinstance(one, str | list) for one in given)
    if not isinstance(given, list) or not taken or not 1 <= len(given) <= 2048:
        raise BadRequest("'input' must be a string or an array of 1 to 2048 strings or token arrays", "input")
    # A token array counts its own length, not that of its spelling.
    texts = [one if isinstance(one, str) else "".join(f"{token:>4}"[-4:] for token in one) for one in given]
    if not all(texts):
        raise BadRequest("'input' cannot be an empty string", "input")
    return texts


@lru_cache(maxsize=256)
def unit_vector(text: str, size: int) -> "array[float]":
    """A float32 vector of length one made from the text's hash."""
    raw = array("h", hashlib.shake_256(text.encode()).digest(size * 2))
    length = sum(number * number for number in raw) ** 0.5 or 1.0
    return array("f", [number / length for number in raw])
