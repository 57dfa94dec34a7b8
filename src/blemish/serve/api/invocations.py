"""`/ping` and `/invocations`, as SageMaker, MLflow and Vertex AI call a model in a container."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from blemish.errors import ImageError, SettingsError
from blemish.serve.api.inspections import answer, inspected
from blemish.serve.api.uploads import from_base64, named_product
from blemish.serve.auth import Operator, TheService

router = APIRouter(tags=["SageMaker, MLflow, Vertex AI"])
MOST = 32  # pictures of one request
SHAPES = ("instances", "inputs", "dataframe_records", "dataframe_split")


@router.get("/ping")
@router.get("/health")
def ping() -> dict[str, str]:
    """Whether the service runs."""
    return {"status": "ok"}


@router.post("/invocations")
async def invocations(
    request: Request, service: TheService, caller: Operator, product: str | None = None, part_id: str = ""
) -> dict[str, Any]:
    """Inspect the picture that the body is, or those that its JSON holds in base64; the latter gives `predictions`."""
    product = named_product(service, product)
    body = await request.body()
    if "json" not in request.headers.get("content-type", ""):
        part = await inspected(service, product, body, part_id, "", "invocations")
        if part.error:
            raise ImageError("a picture that can be read", part.error, "send another")
        return answer(part)
    contents = await run_in_threadpool(pictures_in, body)
    parts = [await inspected(service, product, content, "", "", "invocations") for content in contents]
    return {"predictions": [answer(part) for part in parts]}


def pictures_in(body: bytes) -> list[bytes]:
    """The pictures of a JSON body: strings in base64, or objects with "b64" or "image". Raises SettingsError."""
    try:
        given = json.loads(body)
        found = next(given[name] for name in SHAPES if name in given)
        rows = [dict(zip(found["columns"], row, strict=True)) for row in found["data"]] if "data" in found else found
        values = [
            next(one[name] for name in ("b64", "image") if name in one) if isinstance(one, dict) else one
            for one in rows
        ]
    except (ValueError, TypeError, KeyError, StopIteration, AttributeError, RecursionError) as error:
        raise SettingsError(
            f"JSON with one of {', '.join(SHAPES)}, of base64", "something else", 'send {"instances": [{"b64": "…"}]}'
        ) from error
    if not 1 <= len(values) <= MOST:
        raise SettingsError(f"1 to {MOST} pictures", f"{len(values)}", "send fewer at once")
    return [from_base64(one) for one in values]
