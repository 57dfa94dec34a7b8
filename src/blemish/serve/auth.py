"""Who sends a request, and whether they may: tokens, cookies of pages, and requests that other web pages forged.

A program sends `Authorization: Bearer TOKEN`. A page has a cookie that no script reads and no other site sends, and
adds the header `X-Blemish` to whatever changes something: a form on a foreign page cannot. Without users the service
answers to this machine alone, under its own name, and refuses what other sites' pages send and what a proxy hands on.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from blemish.errors import BlemishError
from blemish.serve.errors import NoTokenError, RoleError
from blemish.serve.records import Role, User
from blemish.serve.service import Service
from blemish.serve.users import LOCAL, is_role_enough
from blemish.serve.web import error_answer

COOKIE, HEADER = "blemish_session", "x-blemish"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HERE = frozenset({"localhost", "127.0.0.1", "::1"})
PROXIED = ("forwarded", "via", "x-real-ip")  # headers that proxies add, beside x-forwarded-…
SIGN_IN = "/api/session"


@dataclass(frozen=True)
class Auth:
    """`is_exposed`: other machines can reach the service, so that a token is demanded even while there are no users."""

    service: Service
    is_exposed: bool = False

    @property
    def is_required(self) -> bool:
        """Whether a request must say who sends it."""
        return self.is_exposed or self.service.users.are_any

    def caller(self, request: Request) -> User:
        """Who sends a request. Raises NoTokenError, RoleError for a forged one, TooManyFailuresError."""
        known: User | None = getattr(request.state, "caller", None)
        if known is not None:
            return known
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            user = None
            if scheme.lower() == "bearer":
                user = self.service.users.by_token(token.strip(), address_of(request))
            if user is None:
                raise NoTokenError("a valid token", "another one", "send 'Authorization: Bearer TOKEN'")
            return user
        if secret := request.cookies.get(COOKIE):
            user = self.service.users.by_session(secret)
            if user is not None:
                check_not_forged(request)
                if request.method not in SAFE and HEADER not in request.headers:
                    raise RoleError("the header X-Blemish beside a cookie", "none", "send 'X-Blemish: 1'")
                return user
        if self.is_required:
            raise NoTokenError("a token", "none", "send 'Authorization: Bearer TOKEN', or sign in")
        check_is_here(request)
        check_not_forged(request)
        return LOCAL

    def check(self, request: Request, role: Role) -> User:
        """As `caller`, of at least this role. Raises RoleError."""
        user = self.caller(request)
        if not is_role_enough(user, role):
            raise RoleError(f"the role {role}", user.role, "ask an engineer")
        return user


class CallersFirst:
    """Middleware: who may not send a request is refused before its body is read, which takes memory and disk."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self.app, self.auth = app, auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in the application's place, or tell it who asks; what reads no body is left to the routes."""
        if scope["type"] == "http" and scope["method"] not in SAFE and scope["path"] != SIGN_IN:
            request = Request(scope)
            try:
                request.state.caller = self.auth.caller(request)
            except BlemishError as error:
                await error_answer(scope["path"], error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def address_of(request: Request) -> str:
    """The address that a request comes from, as far as wrong tokens are counted by it."""
    return request.client.host if request.client else ""


def check_is_here(request: Request) -> None:
    """Raise RoleError unless a request is of this machine, by its own name: foreign sites make one up (DNS rebinding).

    What a proxy hands on may be of anywhere. A proxy is known by its headers, or by HTTP/1.0, which nginx speaks unless
    told otherwise and no browser does; one that shows neither is not known: behind a proxy there must be users.
    """
    names = request.headers.keys()
    is_proxied = any(name in PROXIED or name.startswith("x-forwarded-") for name in names)
    if is_proxied or request.scope.get("http_version") == "1.0" or not is_loopback(address_of(request)):
        raise RoleError("a request of this machine itself", "one by a proxy or by HTTP/1.0", "start with --new-token")
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:  # brackets of no IPv6 address
        name = ""
    if name not in HERE:
        raise RoleError("a request to localhost or 127.0.0.1", repr(name[:80]), "use that name, or add users")


def is_loopback(address: str) -> bool:
    """Whether an IP address is of this machine."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def check_not_forged(request: Request) -> None:
    """Raise RoleError for a request that changes something and that a page of another site had the browser send."""
    if request.method in SAFE:
        return
    origin = request.headers.get("origin")
    try:
        is_foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    except ValueError:  # brackets of no IPv6 address
        is_foreign = True
    if is_foreign or request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RoleError("a request of this service's own pages, or of a program", "another site's", "use its own pages")


async def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Service = request.app.state.service
    return service


async def operator(request: Request) -> User:
    """Who sends a request that an operator may send."""
    auth: Auth = request.app.state.auth
    return auth.check(request, "operator")


async def engineer(request: Request) -> User:
    """Who sends a request that engineers alone may send."""
    auth: Auth = request.app.state.auth
    return auth.check(request, "engineer")


TheService = Annotated[Service, Depends(service_of)]
Operator = Annotated[User, Depends(operator)]
Engineer = Annotated[User, Depends(engineer)]
