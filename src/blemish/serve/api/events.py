"""What happens, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from blemish.errors import BlemishError
from blemish.serve.auth import Auth, Operator, TheService
from blemish.serve.events import Event
from blemish.serve.service import Service

router = APIRouter(prefix="/api", tags=["events"])
WAITING = 1000  # events that a slow listener may leave waiting; further ones are lost to it
NUMBER = re.compile(r"[0-9]{1,18}")
KEEP_ALIVE = 15.0  # seconds after which a comment is sent, so that dead connections are noticed


@router.get("/events", response_class=StreamingResponse)
async def events(
    request: Request, service: TheService, caller: Operator, after: int | None = None, product: str | None = None
) -> StreamingResponse:
    """All events from now on, or, after a lost connection, from the last one received (`Last-Event-ID`)."""
    last = request.headers.get("last-event-id", "")
    only = None if product is None else service.core.product(product).id
    start = int(last) if NUMBER.fullmatch(last) else after

    def is_allowed() -> bool:
        auth: Auth = request.app.state.auth
        try:
            return bool(auth.check(request, "operator"))
        except BlemishError:
            return False

    return StreamingResponse(stream(service, start, only, is_allowed), media_type="text/event-stream")


async def stream(
    service: Service, after: int | None, product: str | None, is_allowed: Callable[[], bool]
) -> AsyncIterator[str]:
    """Events as text, of one product alone where its id is given, until the listener's token or session ends."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event] = asyncio.Queue(WAITING)

    def put(event: Event) -> None:
        with suppress(asyncio.QueueFull):
            queue.put_nowait(event)

    def listen(event: Event) -> None:
        if product is None or event.data.get("product", product) == product:
            loop.call_soon_threadsafe(put, event)

    end = service.events.subscribe(listen, after)
    try:
        yield "retry: 2000\n\n"
        while True:
            try:
                text = text_of(await asyncio.wait_for(queue.get(), KEEP_ALIVE))
            except TimeoutError:
                text = ": here\n\n"
            if not is_allowed():
                return
            yield text
    finally:
        end()


def text_of(event: Event) -> str:
    """One event as the lines that a browser's EventSource reads."""
    return f"id: {event.number}\nevent: {event.kind}\ndata: {json.dumps({'at': event.at, **event.data})}\n\n"
