"""Webhooks of a scene that are really sent: its bells are heard by a delivery loop of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.settings import LOOPBACK
from tests.scene import Scene
from workers.delivery_loop import DeliveryLoop
from workers.webhook_http import WebhookSender
from workers.webhooks import Deliverer

DRAIN_S = 5.0


@asynccontextmanager
async def sending(scene: Scene) -> AsyncIterator[None]:
    """Send what is rung for as long as the block lasts."""
    sender = WebhookSender(LOOPBACK, http=True)
    loop = DeliveryLoop(scene.rt, Deliverer.of(scene.rt, sender), "test-sender")
    scene.deliver = loop.take
    yield
    scene.deliver = None
    loop.close_door()
    await loop.drain(DRAIN_S, lambda _: None)
    await sender.close()
