"""What every call of the benchmark asks, with and without Waybill."""

from typing import Any

MODEL = "gpt-4"
QUESTION: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
