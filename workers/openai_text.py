"""Text completions of models that have them: one request on OpenAI's wire, as the client made it.

The library would not send it through our session, and of a stream it would lose all choices but the first.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from workers.answers import Unreadable
from workers.stream_reading import OpenAISource
from workers.tool_calls import Json


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """client: an `openai.AsyncOpenAI` with the key, the base and our session. arguments: of `completions.create`."""

    client: Any
    arguments: Json

    async def read(self) -> Json:
        """The whole answer. Raises Unreadable, and what the client raises."""
        raw = await self.client.completions.with_raw_response.create(**self.arguments, stream=False)
        try:
            body = orjson.loads(raw.content)
        except orjson.JSONDecodeError:
            raise Unreadable from None
        if not isinstance(body, dict):
            raise Unreadable
        return body

    async def open(self) -> OpenAISource:
        """The answer as a stream, with the tokens it used at its end. Raises what the client raises."""
        told = {"stream": True, "stream_options": {"include_usage": True}}
        raw = await self.client.completions.with_raw_response.create(**self.arguments, **told)
        return OpenAISource(raw.http_response, raw.http_response.aclose)
