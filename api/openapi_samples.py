"""The body that "Try it out" starts with: the fields that are required, with values one can recognise."""

from typing import Any

from pydantic import AliasChoices

from api.openapi_routes import Documented

SAMPLES: dict[str, Any] = {
    "access_groups": ["gpt-models"],
    "alias": "chat-fast",
    "amount": 100,
    "api_key": "sk-of-the-provider",
    "budget_mode": "job_based",
    "complete.status": "completed",
    "completion_window": "24h",
    "credential_name": "production",
    "credits": 100,
    "current_password": "correct horse",
    "display_name": "Ada",
    "email": "ada@example.com",
    "enabled": False,
    "endpoint": "/v1/chat/completions",
    "group_name": "gpt-models",
    "id_mode": "same",
    "job_type": "resume_analysis",
    "input": "The food was delicious.",
    "key": "sk-of-the-team-to-look-at",
    "litellm_model": "openai/gpt-4o",
    "messages": [{"role": "user", "content": "Hello"}],
    "metadata": {"document_id": "doc_123"},
    "model": "chat-fast",
    "model_aliases": ["chat-fast"],
    "model_groups": ["gpt-models"],
    "models": [{"model_name": "chat-fast", "priority": 0}],
    "name": "Acme",
    "new_password": "battery staple",
    "organization_id": "org_acme",
    "password": "correct horse",
    "payment_type": "one_time",
    "prompt": "Say hello.",
    "requests": [
        {"custom_id": "1", "body": {"model": "chat-fast", "messages": [{"role": "user", "content": "Hello"}]}}
    ],
    "provider": "openai",
    "since": "2026-01-15T00:00:00Z",
    "status.status": "active",
    "team_id": "acme-corp",
    "webhook_url": "https://your-app.example/webhooks/job-complete",
}
"""By the field's name on the wire, or by the last word of the path and that name."""
BESIDE = {"alias": "litellm_model", "completion_window": "requests", "id_mode": "since"}
"""What a body with this field needs besides, though no rule of one field says so."""


def sample(route: Documented) -> dict[str, Any]:
    """A body that the route takes."""
    fields = route.body.model_fields if route.body is not None else {}
    names = [_name_on_the_wire(name, field) for name, field in fields.items() if field.is_required()]
    names += [BESIDE[name] for name in names if name in BESIDE]
    last = route.path.rpartition("/")[2]
    return {name: SAMPLES.get(f"{last}.{name}", SAMPLES.get(name)) for name in names}


def _name_on_the_wire(name: str, field: Any) -> str:
    alias = field.validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    return first if isinstance(first, str) else name
