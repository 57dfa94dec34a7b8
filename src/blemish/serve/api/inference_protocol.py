"""The Open Inference Protocol, version 2 (KServe), as Triton, MLServer and others speak it: a model is a product."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from blemish.errors import ImageError, SettingsError
from blemish.serve.api.inspections import inspected
from blemish.serve.api.uploads import from_base64
from blemish.serve.auth import Operator, TheService
from blemish.serve.records import PartRecord, Product
from blemish.serve.rendering import png
from blemish.serve.service import Service

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
MOST = 32  # pictures of one request
OUTPUTS: dict[str, str] = {"score": "FP64", "p_value": "FP64", "threshold": "FP64", "verdict": "BYTES", "part": "BYTES"}


class Tensor(BaseModel):
    """A picture as pixels, UINT8 [1, h, w, 3], or pictures as files in base64, BYTES [n]."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class Output(BaseModel):
    """An output that is asked for."""

    name: str


class Inference(BaseModel):
    """A request of the protocol; `parameters.part_id` names the part."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[Tensor]
    outputs: list[Output] | None = None


@router.get("/health/live")
def live() -> dict[str, bool]:
    """Whether the service runs."""
    return {"live": True}


@router.get("/health/ready")
def ready() -> dict[str, bool]:
    """Whether the service takes requests; of models, see their own."""
    return {"ready": True}


@router.get("")
def server(caller: Operator) -> dict[str, Any]:
    """What this service is."""
    from importlib.metadata import version

    return {"name": "blemish", "version": version("blemish"), "extensions": []}


def product_of(service: Service, model: str, version: str | None) -> Product:
    """The product that a model's name means. Raises SettingsError for a version that is not the active one."""
    product = service.core.product(model)
    active = service.models.active(product)
    if version not in (None, str(active.number), active.id):
        raise SettingsError(f"the version that judges now, {active.number}", repr(version), "activate it first")
    return product


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}")
def metadata(model: str, service: TheService, caller: Operator, version: str | None = None) -> dict[str, Any]:
    """What a model takes and gives."""
    product = product_of(service, model, version)
    return {
        "name": product.name,
        "versions": [str(service.models.active(product).number)],
        "platform": "blemish",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, -1, -1, 3]}],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()],
    }


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
def model_ready(model: str, service: TheService, caller: Operator, version: str | None = None) -> JSONResponse:
    """Whether a product has a model."""
    product = service.core.product(model)
    is_ready = bool(product.active_version)
    if is_ready:
        product_of(service, model, version)
    return JSONResponse({"name": product.name, "ready": is_ready}, 200 if is_ready else 503)


async def body_of(request: Request) -> bytes:
    """The body as it came: one that is too large has been refused by then."""
    return await request.body()


def inference_in(content: Annotated[bytes, Depends(body_of)]) -> Inference:
    """The request that a body is, read in a thread: pixels in JSON take long. Raises RequestValidationError."""
    try:
        return Inference.model_validate_json(content)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from error


BODY = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "description": Tensor.__doc__,
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "datatype": {"type": "string", "enum": ["UINT8", "BYTES"]},
                    "data": {"type": "array"},
                },
            },
        },
        "outputs": {"type": "array", "items": {"type": "object", "properties": {"name": {"enum": list(OUTPUTS)}}}},
    },
}
TAKES_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": BODY}}}}


@router.post("/models/{model}/infer", openapi_extra=TAKES_BODY)
@router.post("/models/{model}/versions/{version}/infer", openapi_extra=TAKES_BODY)
async def infer(
    model: str,
    body: Annotated[Inference, Depends(inference_in)],
    service: TheService,
    caller: Operator,
    version: str | None = None,
) -> dict[str, Any]:
    """Inspect the pictures of a request."""
    product = product_of(service, model, version)
    contents = await run_in_threadpool(pictures_in, body)
    named = body.parameters.get("part_id")
    part_id = str(named) if named is not None and len(contents) == 1 else ""
    parts = [await inspected(service, product.id, content, part_id, "", "inference protocol") for content in contents]
    if broken := [one for one in parts if one.error]:
        raise ImageError("pictures that can be read", broken[0].error, "send others")
    wanted = OUTPUTS if body.outputs is None else [one.name for one in body.outputs]
    if unknown := set(wanted) - OUTPUTS.keys():
        raise SettingsError(f"outputs {', '.join(OUTPUTS)}", ", ".join(sorted(unknown)), "leave them out")
    used = service.core.version(parts[0].version)
    return {
        "model_name": product.name,
        "model_version": str(used.number),
        **({} if body.id is None else {"id": body.id}),
        "outputs": [output_of(name, parts) for name in wanted],
    }


def output_of(name: str, parts: list[PartRecord]) -> dict[str, Any]:
    """One output of all parts."""
    values = [part.id if name == "part" else getattr(part, name) for part in parts]
    return {"name": name, "shape": [len(values)], "datatype": OUTPUTS[name], "data": values}


def pictures_in(body: Inference) -> list[bytes]:
    """The files of a request's pictures; pixels become a PNG. Raises SettingsError for other inputs."""
    if len(body.inputs) != 1:
        raise SettingsError("one input", f"{len(body.inputs)}", "send one")
    tensor = body.inputs[0]
    if tensor.datatype == "BYTES":
        if not 1 <= len(tensor.data) <= MOST:
            raise SettingsError(f"1 to {MOST} pictures", f"{len(tensor.data)}", "send fewer at once")
        return [from_base64(one) for one in tensor.data]
    shape = tensor.shape[1:] if len(tensor.shape) == 4 and tensor.shape[0] == 1 else tensor.shape
    if tensor.datatype != "UINT8" or len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise SettingsError(
            "UINT8 of shape [1, h, w, 3], or BYTES [n]", f"{tensor.datatype} {tensor.shape}", "send one of them"
        )
    try:
        values = np.asarray(tensor.data)
        pixels = values.astype(np.uint8)
        if values.dtype.kind != "i" or not (pixels == values).all():
            raise ValueError("values other than whole numbers from 0 to 255")
        pixels = pixels.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise SettingsError(f"{np.prod(shape)} whole numbers from 0 to 255", str(error), "mend the data") from error
    return [png(pixels)]
