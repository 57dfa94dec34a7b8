"""Amazon Lookout for Vision's DetectAnomalies, for programs that called it before the service closed (October 2025).

The answer has the shape of its documentation. Here class and mask agree, as both come from one map. `Confidence` is
c = score / (score + limit) for an anomalous part and 1 − c for another: at least 0.5, growing with the distance from
the limit; it is no probability. Parts that are unsure count as not anomalous, unknown ones as anomalous.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from blemish.errors import ImageError
from blemish.serve.api.inference_protocol import product_of
from blemish.serve.api.inspections import inspected
from blemish.serve.auth import Operator, TheService
from blemish.serve.records import PartRecord
from blemish.serve.service import Service
from blemish.types import ALARMS

router = APIRouter(tags=["Lookout for Vision"])
BACKGROUND, ANOMALY = "#FFFFFF", "#23A436"


@router.post("/2020-11-20/projects/{project}/models/{version}/detect")
async def detect(project: str, version: str, request: Request, service: TheService, caller: Operator) -> dict[str, Any]:
    """Inspect the picture that the body is; a project is a product, a model version its number, or "active"."""
    product = product_of(service, project, None if version == "active" else version)
    part = await inspected(service, product.id, await request.body(), "", "", "lookout")
    return await run_in_threadpool(detection, service, part)


def detection(service: Service, part: PartRecord) -> dict[str, Any]:
    """An inspected part as Lookout's answer. Raises ImageError for a picture that could not be read."""
    if part.error or part.score is None or part.threshold is None:
        raise ImageError("a picture that can be read", part.error, "send another")
    size = part.prediction["size"]
    anomaly_map = service.core.pictures.map(part.id, (size[0], size[1]))
    inside = region_mask(part, anomaly_map)
    share = float(inside.mean())
    certainty = part.score / (part.score + part.threshold) if part.score + part.threshold > 0 else 0.5
    is_anomalous = part.verdict in ALARMS
    anomalies = [{"Name": "background", "PixelAnomaly": {"TotalPercentageArea": 1 - share, "Color": BACKGROUND}}]
    if inside.any():
        anomalies.append({"Name": "anomaly", "PixelAnomaly": {"TotalPercentageArea": share, "Color": ANOMALY}})
    return {
        "DetectAnomalyResult": {
            "Source": {"Type": "direct"},
            "IsAnomalous": is_anomalous,
            "Confidence": max(0.5, certainty if is_anomalous else 1 - certainty),
            "Anomalies": anomalies,
            "AnomalyMask": mask_png(inside),
        }
    }


def region_mask(part: PartRecord, anomaly_map: np.ndarray) -> np.ndarray:
    """Where an alarm's regions lie, (H, W) bool; nowhere on other parts: class and mask agree."""
    inside = np.zeros(anomaly_map.shape, bool)
    if part.verdict in ALARMS:
        for region in part.prediction["regions"]:
            left, top, right, bottom = region["box"]
            inside[top:bottom, left:right] |= anomaly_map[top:bottom, left:right] >= part.prediction["region_threshold"]
    return inside


def mask_png(inside: np.ndarray) -> str:
    """A mask (H, W) bool in two colours, as PNG in base64."""
    colours = np.array([[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in (BACKGROUND, ANOMALY)], np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours[inside.astype(int)]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
