"""The demo provider's log probabilities: a token is a word, and the likeliest alternatives are the word shouted."""

from cli.demo_texts import WORD, Json

LIKELY, STEP = -0.01, -1.5


def chat_logprobs(text: str, top: int | None, *, refused: bool = False) -> Json | None:
    """Of a text in a chat; top: how many alternatives beside each token, None: none were asked for."""
    if top is None:
        return None
    listed = [_token(word, LIKELY) | {"top_logprobs": _alternatives(word, top)} for word in WORD.findall(text)]
    return {"content": None, "refusal": listed} if refused else {"content": listed, "refusal": None}


def text_logprobs(prompt: str, text: str, top: int | None, offset: int = 0) -> Json | None:
    """Of a text completion that begins at `offset`; an echoed prompt's first token has none."""
    if top is None:
        return None
    echoed, words = WORD.findall(prompt), WORD.findall(text)
    tokens = echoed + words
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    first = bool(echoed)
    alternatives = [{one["token"]: one["logprob"] for one in _alternatives(token, top)} for token in tokens]
    return {
        "tokens": tokens,
        "token_logprobs": [None if first and i == 0 else LIKELY for i in range(len(tokens))],
        "top_logprobs": [None if first and i == 0 else one for i, one in enumerate(alternatives)] if top else None,
        "text_offset": offsets,
    }


def _token(word: str, logprob: float) -> Json:
    return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def _alternatives(word: str, top: int) -> list[Json]:
    return [_token(word + "!" * i, LIKELY + STEP * i) for i in range(top)]
