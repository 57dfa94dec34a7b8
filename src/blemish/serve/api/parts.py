"""Inspected parts, their pictures, and people's decisions about them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from blemish.serve.auth import Engineer, Operator, TheService
from blemish.serve.feedback import Kind
from blemish.serve.parts import MOST, Order, PartQuery, State
from blemish.serve.records import Decision
from blemish.serve.service import Service
from blemish.utils.spreadsheet import cell

router = APIRouter(prefix="/api", tags=["parts"])
COLUMNS = (
    *("id", "part_id", "name", "received_at", "version", "source", "verdict", "score", "p_value"),
    *("threshold", "unsure_threshold", "seconds", "error"),
)


class ReviewBody(BaseModel):
    """A decision about a part; `defect` names what is wrong with a defective one."""

    part: str
    decision: Decision
    defect: str = ""


class ProductBody(BaseModel):
    """A product by id or name."""

    product: str


class ApplyBody(ProductBody):
    """What to make of the reviews."""

    kind: Kind = "limits"


class RestartBody(ProductBody):
    """Whether the line as it is now is to be the reference."""

    accept: bool = False


def query_of(
    service: Service,
    product: str | None,
    verdict: str | None,
    state: State | None,
    decision: Decision | None,
    defect: str | None,
    part_id: str | None,
    text: str | None,
    since: float | None,
    order: Order,
    limit: int,
    offset: int,
) -> PartQuery:
    """A query from the parameters of a request."""
    found = service.core.product(product).id if product else None
    return PartQuery(
        product=found,
        verdict=verdict,
        state=state,
        decision=decision,
        defect=defect,
        part_id=part_id,
        text=text,
        since=since,
        order=order,
        limit=limit,
        offset=offset,
    )


@router.get("/parts")
def parts(
    service: TheService,
    caller: Operator,
    product: str | None = None,
    verdict: str | None = None,
    state: State | None = None,
    decision: Decision | None = None,
    defect: str | None = None,
    part_id: str | None = None,
    text: str | None = None,
    since: float | None = None,
    order: Order = "time",
    limit: int = 50,
    offset: int = 0,
) -> dict[str, Any]:
    """Parts by product, verdict, state of review (open, reviewed, unreviewed, audited), decision, name of defect."""
    query = query_of(service, product, verdict, state, decision, defect, part_id, text, since, order, limit, offset)
    found = service.parts.find(query)
    total = service.parts.count(query)
    end = offset + len(found)
    return {"parts": [one.to_dict() for one in found], "total": total, "next": end if end < total and found else None}


@router.get("/parts.csv")
def parts_csv(
    service: TheService, caller: Operator, product: str, verdict: str | None = None, since: float | None = None
) -> StreamingResponse:
    """All parts of a product as a table, latest first."""
    query = PartQuery(product=service.core.product(product).id, verdict=verdict, since=since, limit=MOST)
    query.where()  # raises while the answer can still be an error

    def lines() -> Iterator[str]:
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "decision", "defect", "reviewed_by", "reviewed_at"])
        before = None
        while True:  # by number, not by place: parts that come meanwhile shift none
            page = service.parts.find(replace(query, before=before))
            for part in page:
                review = part.review
                decided = (
                    ["", "", "", ""] if review is None else [review.decision, review.defect, review.who, review.at]
                )
                writer.writerow([cell(value) for value in [*(getattr(part, name) for name in COLUMNS), *decided]])
            yield file.getvalue()
            file.seek(0)
            file.truncate()
            if len(page) < MOST:
                return
            before = page[-1].seq

    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8")


@router.get("/parts/{part}")
def part(part: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """One part with the history of decisions about it."""
    return service.parts.get(part).to_dict() | {"history": service.parts.history(part)}


@router.get("/parts/{part}/{view}")
def view(
    part: str, view: Literal["image", "overlay", "heat", "thumbnail"], service: TheService, caller: Operator
) -> Response:
    """A part's picture: as it came, with its regions outlined, as heat, or small."""
    content, kind = service.renderer.part(service.parts.get(part), view)
    return Response(content, media_type=kind, headers={"cache-control": "private, max-age=31536000, immutable"})


@router.post("/reviews", status_code=201)
def review(body: ReviewBody, service: TheService, caller: Operator) -> dict[str, Any]:
    """Decide about a part; gives the part."""
    return service.parts.review(body.part, body.decision, caller.name, body.defect).to_dict()


@router.delete("/reviews/last")
def undo(service: TheService, caller: Operator) -> dict[str, Any]:
    """Take back one's own last decision; gives the part."""
    return service.parts.undo(caller.name).to_dict()


@router.get("/reviews/state")
def review_state(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """How far the reviews are: what counts for the limits, what waits, how many false alarms may be learned from."""
    return service.feedback.state(service.core.product(product))


@router.post("/reviews/preview")
def review_preview(body: ProductBody, service: TheService, caller: Operator) -> dict[str, Any]:
    """Which decisions the limits from the reviews would turn; changes nothing."""
    return service.feedback.preview(service.core.product(body.product))


@router.post("/reviews/apply", status_code=202)
def review_apply(body: ApplyBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Make a new version: "limits" from the random sample, or "learn" from false alarms as well; gives the job."""
    return service.feedback.apply(service.core.product(body.product), body.kind, caller.name).to_dict()


@router.get("/monitor")
def monitor(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """Whether the line has changed, and what points to it."""
    return service.watch.state(service.core.product(product))


@router.post("/monitor/restart")
def restart_monitor(body: RestartBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Take back the alarms: the cause is mended, or, with `accept`, is how things are from now on."""
    return service.watch.restart(service.core.product(body.product), body.accept, caller.name)


@router.get("/defects")
def defects(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """The names of defects that people gave, and how often."""
    return {"defects": service.parts.defects(service.core.product(product))}
