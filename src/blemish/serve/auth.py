"""Who sends a request, and whether they may: tokens, cookies of pages, and requests that other web pages forged.

A program sends `Authorization: Bearer TOKEN`. A page has a cookie that no script reads and no other site sends, and
adds the header `X-Blemish` to whatever changes something: a form on a foreign page cannot. Without users the service
answers to this machine alone, under its own name, and refuses what other sites' pages send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from blemish.serve.errors import NoTokenError, RoleError
from blemish.serve.records import Role, User
from blemish.serve.service import Service
from blemish.serve.users import LOCAL, is_role_enough

COOKIE, HEADER = "blemish_session", "x-blemish"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HERE = frozenset({"localhost", "127.0.0.1", "::1"})


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


def address_of(request: Request) -> str:
    """The address that a request comes from, as far as wrong tokens are counted by it."""
    return request.client.host if request.client else ""


def check_is_here(request: Request) -> None:
    """Raise RoleError for a name of this machine that a foreign site may have made up (DNS rebinding)."""
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if name not in HERE:
        raise RoleError("a request to localhost or 127.0.0.1", repr(name[:80]), "use that name, or add users")


def check_not_forged(request: Request) -> None:
    """Raise RoleError for a request that changes something and that a page of another site had the browser send."""
    if request.method in SAFE:
        return
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
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
