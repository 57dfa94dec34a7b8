"""The limits of a product: scores, a preview of other limits, and the move."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, FiniteFloat

from blemish.serve.auth import Engineer, Operator, TheService
from blemish.serve.limits import LimitMove

router = APIRouter(prefix="/api", tags=["limits"])


class MoveBody(BaseModel):
    """Limits by hand (`threshold`, `unsure_threshold`), or by accepted rates; `version` is that of the preview."""

    model_config = ConfigDict(extra="forbid")
    product: str
    threshold: FiniteFloat | None = None
    unsure_threshold: FiniteFloat | None = None
    false_alarm_rate: FiniteFloat | None = None
    unsure_rate: FiniteFloat | None = None
    version: str = ""

    @property
    def move(self) -> LimitMove:
        return LimitMove(self.threshold, self.unsure_threshold, self.false_alarm_rate, self.unsure_rate)


@router.get("/thresholds")
def histogram(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """Scores of good, unlabelled and defective parts, and the limits among them."""
    return service.limits.histogram(service.core.product(product))


@router.post("/thresholds/preview")
def preview(body: MoveBody, service: TheService, caller: Operator) -> dict[str, Any]:
    """What other limits would change; changes nothing."""
    return service.limits.preview(service.core.product(body.product), body.move)


@router.put("/thresholds")
def move(body: MoveBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Move the limits: gives the new version."""
    product = service.core.product(body.product)
    return service.limits.set(product, body.move, caller.name, body.version).to_dict()
