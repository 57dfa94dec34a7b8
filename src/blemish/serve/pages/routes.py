"""What each page shows. What changes something goes through the REST API."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from blemish.serve.auth import Auth, Operator, TheService
from blemish.serve.choices import choices
from blemish.serve.errors import RoleError
from blemish.serve.inputs import Inputs
from blemish.serve.pages.crops import region_crop
from blemish.serve.pages.route import PageRoute
from blemish.serve.pages.templating import render, theme
from blemish.serve.parts import LARGEST, Order, PartQuery, State
from blemish.serve.records import Decision, Product, ProductSettings, User
from blemish.serve.service import Service

ON_WALL = 48  # pictures of a page
ON_ALBUM = 12  # pictures shown of each kind of defect
ON_LIVE = 24  # last parts shown
IN_LOG = 100  # entries of a page
View = Literal["thumbnail", "overlay", "heat"]


class Frame:
    """What every page needs: who is there, and whether a token is demanded."""

    def __init__(self, request: Request, service: TheService, user: Operator) -> None:
        auth: Auth = request.app.state.auth
        inputs: Inputs = request.app.state.inputs
        self.service, self.user, self.needs_token, self.inputs = service, user, auth.is_required, inputs

    def page(self, template: str, title: str, product: Product | None = None, **view: Any) -> HTMLResponse:
        """A template as a page of this person."""
        if product is not None:
            view["waiting"] = self.service.parts.count(PartQuery(product=product.id, state="open"))
        common = {"user": self.user, "needs_token": self.needs_token, "title": title, "product": product}
        return HTMLResponse(render(template, **common, **view))


TheFrame = Annotated[Frame, Depends()]


def router() -> APIRouter:
    """The routes of the pages."""
    made = APIRouter(route_class=PageRoute, include_in_schema=False)
    for path, page in (
        ("/", home),
        ("/login", login),
        ("/theme.css", colours),
        ("/favicon.ico", icon),
        ("/audit", audit),
        ("/settings", settings),
        ("/products/{product}", product_page),
        ("/products/{product}/limits", limits),
        ("/products/{product}/wall", wall),
        ("/products/{product}/review", review),
        ("/products/{product}/album", album),
        ("/products/{product}/live", live),
        ("/parts/{part}/regions/{number}/{kind}", region),
    ):
        made.add_api_route(path, page, methods=["GET"], response_model=None)
    return made


def home(frame: TheFrame) -> HTMLResponse:
    """All products, and a new one."""
    service = frame.service
    cards = [
        {
            "product": one,
            "good": service.catalog.good(one),
            "version": service.core.version(one.active_version) if one.active_version else None,
            "counts": service.parts.counts(one.id),
        }
        for one in service.catalog.products()
    ]
    learning: dict[str, Any] = (
        {"defaults": ProductSettings(), "choices": choices()} if frame.user.role == "engineer" else {}
    )
    return frame.page("home.html", "Products", tab="home", cards=cards, **learning)


def login(next: str = "/") -> HTMLResponse:
    """Where a token is given for a session; `next` is a page of this service, never another site's.

    Browsers leave out tabs and line ends of an address, and read a backslash as a slash.
    """
    is_ours = next.startswith("/") and not next.startswith("//") and "\\" not in next and next.isprintable()
    return HTMLResponse(render("login.html", title="Sign in", next=next if is_ours else "/"))


def colours() -> Response:
    """The colours of reports and pages."""
    return Response(theme(), media_type="text/css", headers={"cache-control": "max-age=3600"})


def icon() -> Response:
    """Browsers ask for this name."""
    return RedirectResponse("/static/icon.svg", 301)


def product_page(product: str, frame: TheFrame) -> HTMLResponse:
    """Good pictures, learning, versions."""
    service = frame.service
    found = service.core.product(product)
    jobs = service.learning.jobs(found, 1)
    return frame.page(
        "product.html",
        found.name,
        found,
        tab="product",
        good=service.catalog.good(found),
        versions=service.models.versions(found.id),
        job=jobs[0] if jobs else None,
        counts=service.parts.counts(found.id),
    )


def limits(product: str, frame: TheFrame) -> HTMLResponse:
    """Where the limits lie among the scores, and what moving them would change."""
    found = frame.service.core.product(product)
    return frame.page("limits.html", f"Limits of {found.name}", found, tab="limits")


def wall(
    product: str,
    frame: TheFrame,
    verdict: str = "",
    state: State | None = None,
    decision: Decision | None = None,
    defect: str = "",
    text: str = "",
    order: Order = "score",
    view: View = "thumbnail",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> HTMLResponse:
    """Inspected pictures, the worst first."""
    service = frame.service
    found = service.core.product(product)
    order = "time" if verdict == "error" else order  # what could not be read has no score
    query = PartQuery(
        product=found.id,
        verdict=verdict or None,
        state=state,
        decision=decision,
        defect=defect or None,
        text=text or None,
        order=order,
        limit=ON_WALL,
        offset=(page - 1) * ON_WALL,
    )
    asked = {"verdict": verdict, "state": state, "decision": decision, "defect": defect, "text": text}
    asked |= {"order": "" if order == "score" else order, "view": "" if view == "thumbnail" else view}

    def link(**changes: Any) -> str:
        """This page with other choices, from its beginning unless a page is named."""
        values = {key: value for key, value in {**asked, **changes}.items() if value}
        return f"/products/{found.id}/wall" + (f"?{urlencode(values)}" if values else "")

    return frame.page(
        "wall.html",
        f"Wall of {found.name}",
        found,
        tab="wall",
        parts=service.parts.find(query),
        total=service.parts.count(query),
        counts=service.parts.counts(found.id),
        asked=asked,
        view=view,
        order=order,
        page=page,
        link=link,
        on_page=ON_WALL,
    )


def review(product: str, frame: TheFrame, part: str = "") -> HTMLResponse:
    """One picture after the other, decided by keys."""
    service = frame.service
    found = service.core.product(product)
    shown = service.parts.get(part) if part else None
    counts = service.parts.counts(found.id)
    return frame.page(
        "review.html", f"Review of {found.name}", found, tab="review", part=shown, counts=counts, total=total_of(counts)
    )


def album(product: str, frame: TheFrame) -> HTMLResponse:
    """Defects by the names that people gave them."""
    service = frame.service
    found = service.core.product(product)
    names = service.parts.defects(found)
    kinds = [
        (name, count, service.parts.find(PartQuery(product=found.id, defect=name, limit=ON_ALBUM)))
        for name, count in names.items()
    ]
    unnamed = PartQuery(product=found.id, decision="defective", defect="", limit=ON_ALBUM)
    if count := service.parts.count(unnamed):
        kinds.append(("", count, service.parts.find(unnamed)))
    return frame.page("album.html", f"Defects of {found.name}", found, tab="album", kinds=kinds)


def live(product: str, frame: TheFrame) -> HTMLResponse:
    """The last parts as they come."""
    found = frame.service.core.product(product)
    has_camera = any(one["kind"] == "camera" and one["product"] in (found.id, found.name) for one in frame.inputs.all())
    return frame.page("live.html", f"{found.name}, live", found, tab="live", most=ON_LIVE, has_camera=has_camera)


def audit(
    frame: TheFrame, product: str = "", before: Annotated[int | None, Query(ge=0, le=LARGEST)] = None
) -> HTMLResponse:
    """Who did what, when."""
    service = frame.service
    chosen = service.core.product(product) if product else None
    entries = service.core.journal(chosen.id if chosen else "", before, IN_LOG)
    products = service.catalog.products()
    return frame.page(
        "audit.html",
        "Log",
        tab="audit",
        entries=entries,
        chosen=chosen,
        products=products,
        names={one.id: one.name for one in products},
        is_more=len(entries) == IN_LOG,
    )


def settings(frame: TheFrame) -> HTMLResponse:
    """Products' settings, people, webhooks, sources. Raises RoleError for operators."""
    need_engineer(frame.user)
    service: Service = frame.service
    waiting = {one["id"]: one for one in service.webhooks.waiting()}
    return frame.page(
        "settings.html",
        "Settings",
        tab="settings",
        products=service.catalog.products(),
        users=service.users.all(),
        webhooks=[(one, waiting.get(one.id)) for one in service.webhooks.all()],
        sources=frame.inputs.all(),
        choices=choices(),
        folder=str(service.core.folder),
        retention=service.retention,
    )


def need_engineer(user: User) -> None:
    """Raise RoleError for somebody who may not change settings."""
    if user.role != "engineer":
        raise RoleError("an engineer, for settings", f"{user.name}, who is an {user.role}", "ask an engineer")


def region(part: str, number: int, kind: Literal["found", "good"], service: TheService, user: Operator) -> Response:
    """A close-up of a region, or of the good place beside it."""
    content = region_crop(service, service.parts.get(part), number, kind == "good")
    return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=31536000, immutable"})


def total_of(counts: dict[str, int]) -> int:
    """How many parts there are of all verdicts."""
    return sum(count for name, count in counts.items() if name != "open")
