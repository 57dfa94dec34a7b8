"""Products: create, show good pictures, learn, and which version judges."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from blemish.serve.api.uploads import read_upload
from blemish.serve.auth import Engineer, Operator, TheService
from blemish.serve.choices import choices as choices_here
from blemish.serve.errors import UnknownError
from blemish.serve.records import Product, ProductSettings
from blemish.serve.service import Service

router = APIRouter(prefix="/api", tags=["products"])


class SettingsBody(BaseModel):
    """Settings of a product; see `ProductSettings`. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    detector: str | None = None
    encoder: str | None = None
    image_size: int | None = None
    false_alarm_rate: float | None = None
    unsure_rate: float | None = None
    device: str | None = None
    seed: int | None = None
    audit_share: float | None = None
    detector_settings: dict[str, Any] | None = None

    def given(self) -> dict[str, Any]:
        """The settings that were sent; null is a value of `image_size` and `unsure_rate` alone, else left out."""
        sent = self.model_dump(exclude_unset=True)
        return {
            name: value for name, value in sent.items() if value is not None or name in ("image_size", "unsure_rate")
        }


class ProductBody(SettingsBody):
    """A new product."""

    name: str = Field(min_length=1)


class ActivateBody(BaseModel):
    """The id of the version that is to judge from now on."""

    version: str


def shown(service: Service, product: Product) -> dict[str, Any]:
    """A product with what belongs to it, in numbers."""
    active = service.core.version(product.active_version).to_dict() if product.active_version else None
    jobs = service.learning.jobs(product, 1)
    return product.to_dict() | {
        "good": len(service.catalog.good(product)),
        "active": active,
        "counts": service.parts.counts(product.id),
        "job": jobs[0].to_dict() if jobs else None,
    }


@router.get("/products")
def products(service: TheService, caller: Operator) -> dict[str, Any]:
    """All products."""
    return {"products": [shown(service, one) for one in service.catalog.products()]}


@router.get("/choices")
def choices(caller: Operator) -> dict[str, Any]:
    """What a product can learn by on this machine: methods, encoders, picture sizes, and what holds by default."""
    return choices_here()


@router.post("/products", status_code=201)
def create(body: ProductBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Create a product."""
    given = body.given()
    name = given.pop("name")
    return shown(service, service.catalog.create(name, caller.name, ProductSettings(**given)))


@router.get("/products/{product}")
def product(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """One product, by id or name."""
    return shown(service, service.core.product(product))


@router.patch("/products/{product}")
def change(product: str, body: SettingsBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Change settings; they hold from the next learning on, the audit share at once."""
    found = service.core.product(product)
    return shown(service, service.catalog.change(found, caller.name, **body.given()))


@router.get("/products/{product}/good")
def good(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """The good pictures of a product."""
    found = service.core.product(product)
    links = {"image": "", "thumbnail": "small=1&"}
    return {
        "good": [
            one.to_dict()
            | {
                "links": {
                    view: f"/api/products/{found.id}/good/{one.sha256}?{options}version={found.active_version}"
                    for view, options in links.items()
                }
            }
            for one in service.catalog.good(found)
        ]
    }


@router.post("/products/{product}/good")
def add_good(product: str, files: list[UploadFile], service: TheService, caller: Engineer) -> dict[str, Any]:
    """Add good pictures (multipart, field `files`)."""
    found = service.core.product(product)
    total: dict[str, Any] = {"added": [], "repeated": 0, "refused": []}
    for file in files:  # one by one: together they may not fit into memory
        one = service.catalog.add_good(found, [read_upload(file, service.settings)], caller.name).to_dict()
        total = {name: total[name] + one[name] for name in total}
    return total


@router.get("/products/{product}/good/{sha256}")
def good_picture(
    product: str, sha256: str, service: TheService, caller: Operator, small: bool = False, version: str | None = None
) -> Response:
    """A good picture, or a small version of it, as a version of the model sees it.

    Of more than 8 bits that depends on the version: the active one where none is named; "" is none, before any has
    learned. What a version is named for never changes, and may be kept.
    """
    found = service.core.product(product)
    if not service.catalog.is_good(found, sha256):
        raise UnknownError(f"a good picture of {found.name!r}", repr(sha256[:80]), "take its sha256")
    content, kind = service.renderer.picture(sha256, found.active_version if version is None else version, small)
    headers = {} if version is None else {"cache-control": "private, max-age=31536000, immutable"}
    return Response(content, media_type=kind, headers=headers)


@router.delete("/products/{product}/good/{sha256}", status_code=204)
def remove_good(product: str, sha256: str, service: TheService, caller: Engineer) -> None:
    """Learn no more from a picture."""
    service.catalog.remove_good(service.core.product(product), sha256, caller.name)


@router.post("/products/{product}/learn", status_code=202)
def learn(product: str, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Learn from the good pictures in the background; gives the job."""
    return service.learning.start(service.core.product(product), caller.name).to_dict()


@router.get("/jobs")
def jobs(service: TheService, caller: Operator, product: str | None = None) -> dict[str, Any]:
    """The latest jobs."""
    found = None if product is None else service.core.product(product)
    return {"jobs": [one.to_dict() for one in service.learning.jobs(found)]}


@router.get("/jobs/{job}")
def job(job: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """One job."""
    return service.learning.job(job).to_dict()


@router.delete("/jobs/{job}")
def cancel(job: str, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Cancel a job."""
    return service.learning.cancel(job).to_dict()


@router.get("/products/{product}/versions")
def versions(product: str, service: TheService, caller: Operator) -> dict[str, Any]:
    """All versions of a product's model, latest first."""
    found = service.core.product(product)
    return {"active": found.active_version, "versions": [one.to_dict() for one in service.models.versions(found.id)]}


@router.post("/products/{product}/activate")
def activate(product: str, body: ActivateBody, service: TheService, caller: Engineer) -> dict[str, Any]:
    """Have another version judge: go back, or forth."""
    found = service.core.product(product)
    return service.models.activate(found, service.core.version(body.version), caller.name).to_dict()
