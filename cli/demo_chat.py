"""The demo provider's chat completions: a request in OpenAI's shape and what was scripted become a Reply."""

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from cli.demo_answers import Choice, Reply, fingerprint, usage_block
from cli.demo_faults import Function, Say
from cli.demo_texts import (
    BadRequest,
    Json,
    count_tokens,
    model_of,
    next_id,
    part,
    plain_reply,
    sample,
    shorten,
    text_of,
    whole,
)

TOKENS_PER_MESSAGE = 4
REPLY_PRIMING_TOKENS = 3
AUDIO_KEPT_S = 3600
SOURCE = {"start_index": 0, "end_index": 4, "title": "Parcels", "url": "https://example.com/parcels"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request, its last user message, and what the demo provider was told to say to it."""

    body: Json
    messages: list[Json]
    question: str
    say: Say

    def wants(self, phrase: str) -> bool:
        """Whether the question has these words, and no script that says all there is to say."""
        return not self.say.has_words and phrase in self.question[:2000].lower()


def chat(body: Json, question: str, say: Say | None = None) -> Reply:
    """Answer a chat request; the same request gets the same text and usage. Raises BadRequest."""
    asked = Asked(body, _messages(body), question, say or Say())
    choices = [_choice(asked, index) for index in range(whole(body, "n", 1, 128) or 1)]
    reasoned = sum(count_tokens(choice.reasoning or "") for choice in choices)
    said = sum(choice.tokens for choice in choices)
    tier = asked.say.service_tier or body.get("service_tier")
    return Reply(
        id=next_id("chatcmpl-"),
        kind="chat.completion",
        model=model_of(body),
        choices=choices,
        usage=usage_block(_prompt_tokens(body, asked.messages), said, reasoning_tokens=reasoned),
        logprobs=(whole(body, "top_logprobs", 0, 20) or 0) if body.get("logprobs") else None,
        service_tier="default" if tier in (None, "auto") else str(tier),
        system_fingerprint=asked.say.system_fingerprint or fingerprint(body),
    )


def _messages(body: Json) -> list[Json]:
    model_of(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise BadRequest("'messages' must be a non-empty array of objects", "messages")
    return messages


def _prompt_tokens(body: Json, messages: list[Json]) -> int:
    tokens = REPLY_PRIMING_TOKENS
    for message in messages:
        tokens += TOKENS_PER_MESSAGE + count_tokens(text_of(message.get("content")))
    for name in ("tools", "functions"):
        if offered := body.get(name):
            tokens += count_tokens(orjson.dumps(offered).decode())
    return tokens


def _choice(asked: Asked, index: int) -> Choice:
    say, body = asked.say, asked.body
    choice = Choice(
        refusal=say.refusal if not asked.wants("please refuse") else "I'm sorry, I cannot help with that.",
        reasoning=say.reasoning if not asked.wants("think aloud") else "The question is short. So is the answer.",
        tool_calls=list(_tool_calls(asked)),
        function_call=_function_call(asked),
    )
    if not choice.silent:
        limit = whole(body, "max_completion_tokens", 1, None) or whole(body, "max_tokens", 1, None)
        choice.text, choice.finish_reason = shorten(_text(asked, index), body.get("stop"), limit)
        choice.annotations = say.annotations or _annotations(asked)
        _speak(choice, body)
    elif choice.refusal is None:
        choice.finish_reason = "tool_calls" if choice.tool_calls else "function_call"
    choice.finish_reason = say.finish_reason or choice.finish_reason
    return choice


def _text(asked: Asked, index: int) -> str:
    if asked.say.text is not None:
        return asked.say.text * asked.say.times
    wanted, last = part(asked.body, "response_format"), asked.messages[-1]
    if wanted.get("type") == "json_schema":
        schema = part(part(wanted, "json_schema"), "schema")
        return orjson.dumps(sample(schema, schema, plain_reply(asked.question))).decode()
    if wanted.get("type") == "json_object":
        return orjson.dumps({"answer": plain_reply(asked.question)}).decode()
    if last.get("role") in ("tool", "function"):
        return f"The tool answered: {text_of(last.get('content'))[:200]}"
    return plain_reply(asked.question, index)


def _annotations(asked: Asked) -> list[Json]:
    return [{"type": "url_citation", "url_citation": SOURCE}] if asked.wants("cite a source") else []


def _speak(choice: Choice, body: Json) -> None:
    """Turn the text into a sound when sound was asked for; the sound is the text."""
    if "audio" in (body.get("modalities") or ()):
        data = base64.b64encode(choice.text.encode()).decode()
        expires_at = int(time.time()) + AUDIO_KEPT_S
        choice.audio = {
            "id": next_id("audio_"),
            "data": data,
            "expires_at": expires_at,
            "transcript": choice.text,
        }


def _tool_calls(asked: Asked) -> Iterator[Json]:
    """Scripted calls, else those a forced tool_choice or the words "use the tools" ask for."""
    called = asked.say.tool_calls or [_call_of(one, asked.question) for one in _wanted_functions(asked)]
    for function in called:
        yield {"id": next_id("call_"), "type": "function", "function": function.as_json()}


def _wanted_functions(asked: Asked) -> list[Json]:
    """The named function, else the first, else (with parallel_tool_calls, or "use the tools") each of them."""
    body, choice = asked.body, asked.body.get("tool_choice")
    tools = body.get("tools")
    if not isinstance(tools, list) or asked.say.has_words or choice == "none":
        return []
    offered = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    functions = [function for function in offered if isinstance(function, dict)]
    if isinstance(choice, dict):
        return _named(functions, part(choice, "function").get("name"), "tool_choice")
    free = choice in (None, "auto")
    if free and not asked.wants("use the tools"):
        return []
    parallel = body.get("parallel_tool_calls", free)
    return functions if parallel else functions[:1]


def _function_call(asked: Asked) -> Json | None:
    """The scripted or forced call of a function in the form before tools."""
    if asked.say.function_call is not None:
        return asked.say.function_call.as_json()
    choice, functions = asked.body.get("function_call"), asked.body.get("functions")
    if not isinstance(choice, dict) or not isinstance(functions, list) or asked.say.has_words:
        return None
    [function, *_] = _named(functions, choice.get("name"), "function_call")
    return _call_of(function, asked.question).as_json()


def _named(functions: list[Json], name: object, param: str) -> list[Json]:
    found = [one for one in functions if one.get("name") == name]
    if not found:
        raise BadRequest(f"Tool choice '{name}' not found in 'tools' parameter.", param)
    return found


def _call_of(function: Json, question: str) -> Function:
    schema = part(function, "parameters") or {"type": "object"}
    arguments = orjson.dumps(sample(schema, schema, plain_reply(question))).decode()
    return Function(name=str(function.get("name", "")), arguments=arguments)
