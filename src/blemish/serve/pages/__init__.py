"""The pages where people decide: rendered here, moved by small scripts that speak the service's own REST API."""

from __future__ import annotations

from blemish.serve.pages.routes import router

__all__ = ["router"]
