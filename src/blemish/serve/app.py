"""The web application: the service's REST APIs and pages, behind limits, headers and roles."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from blemish.errors import SettingsError
from blemish.serve import pages
from blemish.serve.api import (
    administration,
    events,
    inference_protocol,
    inspections,
    invocations,
    limits,
    lookout,
    parts,
    products,
)
from blemish.serve.auth import Auth, CallersFirst
from blemish.serve.inputs import Inputs
from blemish.serve.service import Service
from blemish.serve.web import RequestLimits, SafeHeaders, handle_errors

COMPATIBLE = {"lookout": lookout.router}


def create_app(
    service: Service, is_exposed: bool = False, compat: Collection[str] = (), inputs: Inputs | None = None
) -> FastAPI:
    """The application of an open service.

    `is_exposed`: other machines can reach it, so that every request needs a token. `compat` names the closed services
    whose clients are answered, too: "lookout". `inputs` are the folders and cameras that parts come from, if any.
    """
    if unknown := set(compat) - COMPATIBLE.keys():
        raise SettingsError(f"one of {', '.join(COMPATIBLE)}", ", ".join(sorted(unknown)), "leave it out")

    app = FastAPI(
        title="blemish",
        summary="Visual inspection of manufactured parts",
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
    )
    auth = Auth(service, is_exposed)
    app.state.service, app.state.auth, app.state.inputs = service, auth, inputs or Inputs(service)
    handle_errors(app)
    app.add_middleware(RequestLimits, settings=service.settings)  # the last one named is the first that a request meets
    app.add_middleware(CallersFirst, auth=auth)
    app.add_middleware(SafeHeaders)
    modules = (products, inspections, parts, limits, events, administration, inference_protocol, invocations)
    for router in (*(module.router for module in modules), *(COMPATIBLE[name] for name in sorted(set(compat)))):
        app.include_router(router)
    app.include_router(pages.router())
    static = Path(str(files("blemish.serve.pages"))) / "static"
    if static.is_dir():
        app.mount("/static", StaticFiles(directory=static), name="static")
    return app
