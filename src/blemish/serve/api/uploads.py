"""Pictures out of requests: files of a form, raw bodies, base64; and the product that is meant."""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.datastructures import UploadFile

from blemish.errors import SettingsError
from blemish.serve.core import ServiceSettings
from blemish.serve.errors import TooLargeError
from blemish.serve.service import Service

Result = TypeVar("Result")


def read_upload(file: UploadFile, settings: ServiceSettings) -> tuple[str, bytes]:
    """The name and content of a file of a form. Raises TooLargeError before it is read as a whole."""
    content = file.file.read(settings.max_upload + 1)
    if len(content) > settings.max_upload:
        raise TooLargeError(
            f"pictures of at most {settings.max_upload} bytes each", "a larger one", "send smaller ones"
        )
    return file.filename or "", content


def from_base64(text: Any) -> bytes:
    """The bytes of a base64 string. Raises SettingsError."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise SettingsError("a picture's file in base64", str(error), "encode the file's bytes") from error


def named_product(service: Service, name: str | None) -> str:
    """The product that a request names, or the only one there is. Raises SettingsError where that is not clear."""
    if name:
        return name
    products = service.catalog.products()
    if len(products) != 1:
        raise SettingsError("?product=NAME", f"none, with {len(products)} products", "name one")
    return products[0].id


async def result_of(service: Service, future: Future[Result]) -> Result:
    """Wait for an inspection without holding a thread. Raises TimeLimitError; BusyError where its turn did not come."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), service.settings.time_limit)
    except TimeoutError as error:
        raise service.line.given_up(future) from error
