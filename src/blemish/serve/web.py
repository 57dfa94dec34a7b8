"""What holds for every request: a limit on its size, headers that browsers obey, errors of three facts as JSON."""

from __future__ import annotations

import sqlite3
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blemish.errors import (
    BlemishError,
    DatasetError,
    ImageError,
    MissingPackageError,
    OutputError,
    SettingsError,
)
from blemish.serve.core import ServiceSettings
from blemish.serve.errors import ServiceError

JSON_LIMIT = 2**20  # bytes of a body that holds no picture
WITH_PICTURES = ("/api/inspect", "/v2/", "/invocations", "/2020-11-20/")
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
STATUS: tuple[tuple[type[BlemishError], int], ...] = (
    (ImageError, 422),
    (DatasetError, 422),
    (SettingsError, 400),
    (MissingPackageError, 501),
    (OutputError, 507),
)


class TooLargeRequest(HTTPException):
    """A body that turned out too large while it was read, of the kind that FastAPI lets pass; `facts` are three."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, "too large")
        self.facts = too_large(limit)


class RequestLimits:
    """Middleware: a body that is too large ends with 413 while it is read, before anything is decoded."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes as they come."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit, read = self.limit(scope["path"], headers.get("content-type", "")), 0
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            await error_response(scope["path"], 413, *too_large(limit))(scope, receive, send)
            return

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLargeRequest(limit)
            return message

        await self.app(scope, counted, send)

    def limit(self, path: str, kind: str) -> int:
        """How many bytes a request may have: pictures may be of several files, or in base64."""
        if path.endswith("/good") or (path.startswith("/api/inspect") and kind.startswith("multipart/")):
            return self.settings.max_request
        if path.startswith("/api/inspect"):
            return self.settings.max_upload
        if path.startswith(WITH_PICTURES):
            return 4 * self.settings.max_upload // 3 + JSON_LIMIT
        return JSON_LIMIT


def too_large(limit: int) -> tuple[str, str, str]:
    """The three facts of a body that is too large."""
    return f"a request of at most {limit} bytes", "more", "send smaller or fewer pictures"


class SafeHeaders:
    """Middleware: headers on every answer, errors included; one that nobody foresaw is answered here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add what is not there."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_begun = False

        async def with_headers(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        except Exception as error:
            if not is_begun:
                await error_answer(scope["path"], error)(scope, receive, with_headers)
            raise  # the server prints it, with the place where it arose


def error_response(
    path: str, status: int, expected: str, got: str, do: str, retry_after: int | None = None
) -> JSONResponse:
    """Three facts as JSON; the inference protocols want one sentence instead.

    What was sent may hold halves of surrogate pairs, which UTF-8 cannot hold: they become "?".
    """
    expected, got, do = (text.encode("utf-8", "replace").decode() for text in (expected, got, do))
    content: Any = {"expected": expected, "got": got, "do": do}
    if path.startswith(("/v2", "/invocations")):
        content = f"expected {expected}; got {got}; {do}"
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": content}, status, headers)


def status_of(error: BlemishError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ServiceError):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def error_answer(path: str, error: Exception) -> JSONResponse:
    """The answer to an error, in three facts; of one that nobody foresaw its kind alone is told."""
    if isinstance(error, BlemishError):
        retry = error.retry_after if isinstance(error, ServiceError) else None
        return error_response(path, status_of(error), error.expected, error.got, error.do, retry)
    if isinstance(error, sqlite3.Error):
        do = "see that the disk of the data folder has room"
        return error_response(path, 507, "a database that can be read and written", str(error), do)
    kind = type(error).__name__
    return error_response(path, 500, "an answer", f"a fault of the service, {kind}", "see what the service printed")


def handle_errors(app: FastAPI) -> None:
    """Have every error answered in three facts."""

    @app.exception_handler(BlemishError)
    async def blemish_error(request: Request, error: BlemishError) -> JSONResponse:
        return error_answer(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        loc = first["loc"][:1] if first["type"] == "json_invalid" else first["loc"]  # no JSON: then counts letters
        place = ".".join(str(part) for part in loc)
        return error_response(
            request.url.path, 422, f"a request as /api/openapi.json says, with a valid {place}", first["msg"], "mend it"
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        facts = ("a request that can be answered", str(error.detail), "see docs/serve.md")
        if isinstance(error, TooLargeRequest):
            facts = error.facts
        return error_response(request.url.path, error.status_code, *facts)
