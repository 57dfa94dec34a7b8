"""How a page says that something went wrong: as a page, or by asking who is there."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from blemish.errors import BlemishError
from blemish.serve.errors import NoTokenError
from blemish.serve.pages.templating import render
from blemish.serve.web import status_of


class PageRoute(APIRoute):
    """A route whose errors are pages; somebody without a session is sent to the login page, and back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler with errors turned into pages."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except NoTokenError:
                here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"/login?next={quote(here, safe='')}", 303)
            except BlemishError as error:
                facts = {"expected": error.expected, "got": error.got, "do": error.do}
                return HTMLResponse(render("error.html", title="Not so", **facts), status_of(error))

        return handled
