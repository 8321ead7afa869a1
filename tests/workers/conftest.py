"""What tests of workers share: the sender that posts webhooks to receivers on this machine."""

from collections.abc import AsyncIterator

import pytest

from shared.settings import LOOPBACK
from workers.webhook_http import WebhookSender


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(LOOPBACK, http=True)
    yield sender
    await sender.close()
