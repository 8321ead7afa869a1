"""What is asked of users, teams and costs."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from api.fields import MAX_INT4, Absent

MOST_KEYS = 100
Tokens = Annotated[int, Field(ge=0, le=MAX_INT4)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class UserQuery(Absent):
    """Which user, and which of the keys; no user: the one of the caller's key."""

    user_id: str | None = None
    key_limit: Annotated[int, Field(ge=0, le=MOST_KEYS)] = MOST_KEYS
    key_offset: Annotated[int, Field(ge=0, le=10**9)] = 0


class TeamQuery(Absent):
    """Which team, and how many of its keys."""

    team_id: str
    key_limit: Annotated[int, Field(ge=0, le=MOST_KEYS)] = MOST_KEYS


class CostQuery(Absent):
    """So many tokens of a model."""

    model: Name | None = None
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0


class CachedTokens(Absent):
    """How many of the prompt's tokens the provider had already."""

    cached_tokens: Tokens = 0


class AnsweredUsage(Absent):
    """What a completion used."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    prompt_tokens_details: CachedTokens = CachedTokens()

    @property
    def tokens(self) -> dict[str, int]:
        """By the names of a price."""
        cached = min(self.prompt_tokens_details.cached_tokens, self.prompt_tokens)
        counted = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return counted | {"cached_tokens": cached}


class Answered(Absent):
    """A completion as a provider answered it."""

    model: Name | None = None
    usage: AnsweredUsage


class CostIn(Absent):
    """A prompt that is not sent yet, or a completion that was answered."""

    model: Name | None = None
    messages: list[dict[str, Any]] | None = None
    completion_response: Answered | None = None
