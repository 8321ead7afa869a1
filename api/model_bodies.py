"""The bodies of the alias routes, and the columns they become: provider and model, prices, sealed key, checked URL."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, StringConstraints, field_validator

from api.fields import Absent, AliasName, Description, Id, Positive, Price, Title, each_once
from shared import egress, money
from shared.errors import BadRequest, Invalid
from shared.prices import PriceMap
from shared.providers import PROVIDERS
from shared.runtime import Runtime
from shared.sealed_columns import ALIAS_KEY

ModelName = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
ApiKey = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,4096}$")]
Fallbacks = Annotated[list[AliasName], Field(max_length=16)]

ALIAS = AliasChoices("alias", "model_alias")
STATUSES = ("active", "inactive")
GROUPS = AliasChoices("access_groups", "model_groups")
PRICES = {
    "pricing_input": "input_nanousd_per_mtok",
    "pricing_output": "output_nanousd_per_mtok",
    "pricing_cached_input": "cached_input_nanousd_per_mtok",
}
MAKERS = {
    "claude": "anthropic",
    "command": "cohere",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "grok": "xai",
    "mistral": "mistral",
}
AS_THEY_ARE = (
    "description", "active", "fallbacks", "allow_unpriced", "on_unknown", "max_output_tokens", "credential_name",
    "api_base",
)  # fmt: skip


class AliasFields(BaseModel):
    """What can be said of an alias, at its creation and later."""

    litellm_model: ModelName | None = None
    provider: str | None = None
    actual_model: ModelName | None = None
    display_name: Title | None = None
    description: Description | None = None
    active: bool = True
    access_groups: list[Id] = Field(default=[], validation_alias=GROUPS)
    fallbacks: Fallbacks = []
    pricing_input: Price | None = None
    pricing_output: Price | None = None
    pricing_cached_input: Price | None = None
    allow_unpriced: bool = False
    on_unknown: Literal["retry", "fail"] = "retry"
    max_output_tokens: Positive | None = None
    credential_name: Title | None = None
    api_key: ApiKey | None = None
    api_base: str | None = None

    @field_validator("access_groups", "fallbacks")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        return each_once(value)


class CreateAlias(Absent, AliasFields):
    """The body of POST /model-aliases/create."""

    alias: AliasName = Field(validation_alias=ALIAS)


class ChangeAlias(AliasFields):
    """The body of PUT /model-aliases/{alias}: fields left out stay, null clears what may be empty."""

    alias: AliasName | None = Field(default=None, validation_alias=ALIAS)


async def columns_of(rt: Runtime, alias: str, body: AliasFields) -> dict[str, Any]:
    """The columns that the fields given set. Resolves api_base: not in a transaction. Raises Invalid, BadRequest."""
    given = body.model_fields_set
    if body.api_base is not None:
        await check_api_base(rt, body.api_base)
    columns = {name: getattr(body, name) for name in AS_THEY_ARE if name in given}
    if "display_name" in given:
        columns["display_name"] = body.display_name or alias
    for field, column in PRICES.items():
        if field in given:
            price: Decimal | None = getattr(body, field)
            columns[column] = money.nanousd_per_mtok(price)
    if "api_key" in given:
        purpose = ALIAS_KEY.purpose(alias)
        columns["api_key_sealed"] = None if body.api_key is None else rt.sealer.seal(body.api_key, purpose=purpose)
    if isinstance(body, CreateAlias) or not given.isdisjoint({"litellm_model", "provider", "actual_model"}):
        columns |= provider_columns(body.litellm_model, body.provider, body.actual_model)
    return columns


def provider_columns(litellm_model: str | None, provider: str | None, actual_model: str | None) -> dict[str, str]:
    """The three columns that name the provider's model. Raises BadRequest (unknown provider), Invalid (incomplete).

    `litellm_model` is `<provider>/<model>`; a name without a provider of ours in front needs `provider` beside it.
    """
    if litellm_model is None:
        if provider is None or actual_model is None:
            missing = "actual_model" if provider else "provider" if actual_model else "litellm_model"
            raise Invalid.at(["body", missing], "field required", "value_error.missing")
        litellm_model = f"{provider}/{actual_model}"
    first, _, rest = litellm_model.partition("/")
    if provider is None and not rest:
        raise Invalid.at(["body", "litellm_model"], "must be provider/model, such as openai/gpt-4", "value_error.model")
    provider = provider or first
    check_provider(provider)
    if provider == first and not rest:
        raise Invalid.at(["body", "litellm_model"], "must be provider/model, such as openai/gpt-4", "value_error.model")
    model = rest if provider == first else litellm_model
    return {"provider": provider, "actual_model": model, "litellm_model": f"{provider}/{model}"}


def columns_of_name(prices: PriceMap, name: str) -> dict[str, str]:
    """The columns of an alias that is named like the provider's model, as model groups bring it.

    A bare name is the model's own where the price map knows its provider; else its first word tells, or it is OpenAI's,
    whose API most servers speak.
    """
    first, _, rest = name.partition("/")
    known = prices.of(name)
    if first in PROVIDERS and rest:
        columns = provider_columns(name, None, None)
    elif known is not None and known.provider is not None:
        columns = {"provider": known.provider, "actual_model": name, "litellm_model": name}
    else:
        makers = (provider for word, provider in MAKERS.items() if name.startswith(word))
        columns = provider_columns(name, next(makers, "openai"), None)
    return {"alias": name, "display_name": name, **columns}


def check_provider(provider: str) -> None:
    """Raises BadRequest unless it is one of ours."""
    if provider not in PROVIDERS:
        raise BadRequest(f"Invalid provider: {provider[:100]}. Must be one of: {', '.join(PROVIDERS)}")


async def check_api_base(rt: Runtime, api_base: str) -> None:
    """Raises BadRequest unless workers may connect there. Resolves a name: not in a transaction."""
    try:
        await egress.accept(api_base, rt.settings.provider_networks, http=True, lookup=rt.lookup)
    except egress.UrlRefused as refused:
        raise BadRequest(f"api_base is not allowed: {refused.reason}") from None


def is_active(status: str | None) -> bool | None:
    """What the filter `status` of a list asks for, in any case; None: everything. Raises BadRequest."""
    if status is None:
        return None
    if status.lower() not in STATUSES:
        raise BadRequest(f"Invalid status: {status[:100]}. Must be one of: {', '.join(STATUSES)}")
    return status.lower() == "active"
