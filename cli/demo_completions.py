"""The demo provider's text completions: k prompts times n choices in OpenAI's first shape become a Reply."""

from cli.demo_answers import Choice, Reply, fingerprint, usage_block
from cli.demo_faults import Say
from cli.demo_texts import BadRequest, Json, count_tokens, model_of, next_id, plain_reply, shorten, texts_of, whole

MOST_PROMPTS = 2048
DEFAULT_MAX_TOKENS = 16


def text_completion(body: Json, say: Say | None = None) -> Reply:
    """Answer each prompt n times, `index` running over both; `best_of` is charged. Raises BadRequest."""
    model = model_of(body)
    prompts = texts_of(body.get("prompt"), "prompt", MOST_PROMPTS)
    n, tried = _tries(body)
    choices = [_choice(body, prompt, index, say) for prompt in prompts for index in range(n)]
    # A suffix is read like a prompt: the text is written to lead up to it.
    given = sum(map(count_tokens, prompts)) + count_tokens(str(body.get("suffix") or "")) * len(prompts)
    said = sum(choice.tokens for choice in choices) * tried // n
    return Reply(
        id=next_id("cmpl-"),
        kind="text_completion",
        model=model,
        choices=choices,
        usage=usage_block(given, said),
        logprobs=whole(body, "logprobs", 0, 5),
        system_fingerprint=fingerprint(body),
    )


def _tries(body: Json) -> tuple[int, int]:
    """How many choices are shown of each prompt, and how many are made."""
    n = whole(body, "n", 1, 128) or 1
    tried = whole(body, "best_of", 1, 128) or n
    if tried < n:
        raise BadRequest("'best_of' must be at least 'n'", "best_of")
    if tried > n and body.get("stream"):
        raise BadRequest("Results cannot be streamed when 'best_of' is above 'n'", "best_of")
    return n, tried


def _choice(body: Json, prompt: str, index: int, say: Say | None) -> Choice:
    limit = whole(body, "max_tokens", 0, None)
    scripted = say.text * say.times if say is not None and say.text is not None else None
    reply = plain_reply(prompt, index) if scripted is None else scripted
    text, finish_reason = shorten(reply, body.get("stop"), DEFAULT_MAX_TOKENS if limit is None else limit)
    return Choice(
        text=text,
        finish_reason=(say.finish_reason if say is not None else None) or finish_reason,
        prompt=prompt if body.get("echo") else "",
    )
