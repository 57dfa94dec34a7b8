"""Users, sessions, webhooks, the journal, the state of the service, and its figures for Prometheus."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from blemish.serve.auth import COOKIE, Auth, Engineer, Operator, TheService, address_of, check_not_forged
from blemish.serve.errors import NoTokenError
from blemish.serve.inputs import Inputs
from blemish.serve.parts import LARGEST
from blemish.serve.records import Role
from blemish.serve.users import SESSION_SECONDS

router = APIRouter(tags=["administration"])


class UserBody(BaseModel):
    """A new user."""

    name: str
    role: Role


class TokenBody(BaseModel):
    """A token, to be exchanged for a session."""

    token: str


class WebhookBody(BaseModel):
    """An address, and which verdicts of which product it is sent (none: all)."""

    url: str
    verdicts: list[str] = []
    product: str = ""


@router.get("/api/status")
def status(request: Request, service: TheService, caller: Operator) -> dict[str, Any]:
    """Who asks, what there is, and how the service is bounded."""
    from importlib.metadata import version

    auth: Auth = request.app.state.auth
    return {
        "version": version("blemish"),
        "user": caller.to_dict(),
        "needs_token": auth.is_required,
        "products": [one.to_dict() for one in service.catalog.products()],
        "counts": service.parts.counts(),
        "webhooks": service.webhooks.waiting(),
        "retention": None if service.retention is None else service.retention.to_dict(),
        "limits": {
            "max_upload": service.settings.max_upload,
            "waiting": service.settings.waiting,
            "time_limit": service.settings.time_limit,
        },
    }


@router.get("/api/audit")
def journal(
    service: TheService,
    caller: Operator,
    product: str | None = None,
    before: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
    limit: int = 100,
) -> dict[str, Any]:
    """Who did what, when, from what to what, latest first."""
    found = "" if product is None else service.core.product(product).id
    entries = service.core.journal(found, before, min(max(1, limit), 500))
    return {"audit": [one.to_dict() for one in entries], "next": entries[-1].seq if entries else None}


@router.get("/api/sources")
def sources(request: Request, caller: Operator) -> dict[str, Any]:
    """The folders and cameras that parts come from, and how they are; they are named on the command line."""
    inputs: Inputs = request.app.state.inputs
    return {"sources": inputs.all()}


@router.post("/api/sources/trigger")
def trigger(request: Request, caller: Operator, product: str, part_id: str = "") -> dict[str, Any]:
    """Inspect a new frame of a product's camera."""
    inputs: Inputs = request.app.state.inputs
    return inputs.trigger(product, part_id).to_dict()


@router.get("/api/users")
def users(service: TheService, caller: Engineer) -> dict[str, Any]:
    """All users."""
    return {"users": [one.to_dict() for one in service.users.all()]}


@router.post("/api/users", status_code=201)
def add_user(body: UserBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Add a user; the token in the answer is shown this once. From the first user on every request needs one."""
    token = service.users.add(body.name, body.role, caller.name)
    return {"name": body.name.strip(), "role": body.role, "token": token}


@router.delete("/api/users/{name}", status_code=204)
def remove_user(name: str, service: TheService, caller: Engineer) -> None:
    """Remove a user."""
    service.users.remove(name, caller.name)


@router.post("/api/session")
def sign_in(body: TokenBody, request: Request, response: Response, service: TheService) -> dict[str, Any]:
    """Exchange a token for a cookie; pages add `X-Blemish: 1` to all that changes something."""
    check_not_forged(request)
    user = service.users.by_token(body.token.strip(), address_of(request))
    if user is None:
        raise NoTokenError("a valid token", "another one", "ask an engineer for yours")
    response.set_cookie(
        COOKIE,
        service.users.open_session(user),
        max_age=int(SESSION_SECONDS),
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return user.to_dict()


@router.delete("/api/session", status_code=204)
def sign_out(request: Request, response: Response, service: TheService, caller: Operator) -> None:
    """End the session of this cookie."""
    service.users.close_session(request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, path="/")


@router.get("/api/webhooks")
def webhooks(service: TheService, caller: Engineer) -> dict[str, Any]:
    """All webhooks, and what waits to be sent."""
    return {"webhooks": [one.to_dict() for one in service.webhooks.all()], "waiting": service.webhooks.waiting()}


@router.post("/api/webhooks", status_code=201)
def add_webhook(body: WebhookBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Have results sent to an address."""
    return service.webhooks.add(body.url, body.verdicts, body.product, caller.name).to_dict()


@router.delete("/api/webhooks/{webhook}", status_code=204)
def remove_webhook(webhook: str, service: TheService, caller: Engineer) -> None:
    """Send no more to an address."""
    service.webhooks.remove(webhook, caller.name)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(service: TheService, caller: Operator) -> PlainTextResponse:
    """Figures in the text format of Prometheus."""
    names = {one.id: one.name for one in service.catalog.products()}
    webhooks = service.webhooks.waiting()
    waiting = {
        "blemish_parts_for_review": service.parts.counts()["open"],
        "blemish_webhooks_waiting": sum(one["waiting"] for one in webhooks),
        "blemish_webhooks_dropped": sum(one["dropped"] for one in webhooks),
    }
    if retention := service.retention:
        waiting |= {
            "blemish_retention_bytes": retention.bytes,
            "blemish_retention_too_large_bytes": retention.plan.too_large,
            "blemish_retention_too_many_parts": retention.plan.too_many,
            "blemish_retention_too_old_parts": retention.plan.too_old,
            "blemish_retention_failed": int(bool(retention.error)),
        }
    return PlainTextResponse(service.statistics.text(names, waiting), media_type="text/plain; version=0.0.4")
