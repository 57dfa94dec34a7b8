"""Inspect pictures: one as the body of a request, or several as files of a form."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from blemish.errors import BlemishError, ImageError, SettingsError
from blemish.serve.api.uploads import named_product, read_upload, result_of
from blemish.serve.auth import Operator, TheService
from blemish.serve.catalog import shown_name
from blemish.serve.line import Judged, facts_of
from blemish.serve.records import PartRecord
from blemish.serve.rendering import outlined
from blemish.serve.service import Service
from blemish.serve.web import status_of

router = APIRouter(prefix="/api", tags=["inspect"])
MOST_FILES = 100


@router.post(
    "/inspect",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    }
                },
            },
        }
    },
)
async def inspect(
    request: Request,
    response: Response,
    service: TheService,
    caller: Operator,
    product: str | None = None,
    part_id: str = "",
    name: str = "",
) -> dict[str, Any]:
    """Inspect a picture, and answer once the result is on the disk.

    A raw body is one picture. Of a form all files are inspected; `part_id` may be a field of the form as often as there
    are files. The answer for one picture is its record; for several, `parts` holds records or errors in their order.
    """
    product = named_product(service, product)
    if not request.headers.get("content-type", "").startswith("multipart/"):
        part = await inspected(service, product, await request.body(), part_id, name)
        response.status_code = 422 if part.error else 200
        return answer(part)
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FILES) as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise SettingsError("a form with a file", "none", "send it as curl -F files=@part.png does")
        ids = [str(value) for key, value in form.multi_items() if key == "part_id"] or [part_id] * (len(files) == 1)
        found: list[dict[str, Any]] = []
        statuses: list[int] = []
        for i, file in enumerate(files):
            try:
                file_name, content = await run_in_threadpool(read_upload, file, service.settings)
                part = await inspected(service, product, content, ids[i] if i < len(ids) else "", file_name)
                found.append(answer(part))
                statuses.append(422 if part.error else 200)
            except BlemishError as error:
                if len(files) == 1:
                    raise
                facts = {"expected": error.expected, "got": error.got, "do": error.do}
                found.append({"name": file.filename, "error": facts, "status": status_of(error)})
                statuses.append(status_of(error))
    if len(found) == 1:
        response.status_code = statuses[0]
        return found[0]
    return {"parts": found}


@router.post(
    "/inspect/try",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def try_out(
    request: Request, service: TheService, caller: Operator, product: str | None = None, name: str = ""
) -> dict[str, Any]:
    """Have the picture that the body is judged without making it a part of the line: nothing is stored or counted.

    The answer has the verdict's fields of a part's record, and the outlined picture as a data URL, `overlay`.
    """
    product = named_product(service, product)
    judged = await result_of(service, service.line.judge(product, await request.body(), name))
    return await run_in_threadpool(trial_of, judged, shown_name(name))


def trial_of(judged: Judged, name: str) -> dict[str, Any]:
    """A judged picture as the API shows it. Raises ImageError for one that cannot be read."""
    if judged.image is None or judged.prediction is None:
        raise ImageError("a picture that can be read", judged.error, "send another file")
    content, kind = outlined(judged.image, judged.prediction)
    overlay = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return {"name": name, **facts_of(judged.prediction, name), "overlay": overlay}


async def inspected(
    service: Service, product: str, content: bytes, part_id: str, name: str, source: str = "rest"
) -> PartRecord:
    """The committed record of a picture."""
    return await result_of(service, service.line.submit(product, content, part_id, name, source))


def answer(part: PartRecord) -> dict[str, Any]:
    """A record as the API shows it; one without a verdict says in three facts why."""
    shown = part.to_dict()
    if part.error:
        shown["error"] = {"expected": "a picture that can be read", "got": part.error, "do": "send another file"}
    return shown
