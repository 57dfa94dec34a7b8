"""What the service refuses, each with the HTTP status that says so."""

from __future__ import annotations

from blemish.errors import BlemishError, ImageError, SettingsError


class ServiceError(BlemishError):
    """An error that the service raises on purpose; `status` is its HTTP status, `retry_after` seconds if any."""

    status = 400
    retry_after: int | None = None


class UnknownError(ServiceError):
    """A product, part, version or user that does not exist."""

    status = 404


class ConflictError(ServiceError):
    """Something that cannot be done as things stand: a name that is taken, a second learning run."""

    status = 409


class TooLargeError(ServiceError):
    """More bytes than the service takes."""

    status = 413


class PartIdError(SettingsError):
    """A part's id that cannot be one: too long, or of letters that cannot be printed."""


class BusyError(ServiceError):
    """More inspections are waiting than the service lets wait, or have waited for longer."""

    status = 503
    retry_after = 1


class TimeLimitError(ServiceError):
    """An inspection that took longer than the service lets one take."""

    status = 504


class DecoderError(ServiceError, ImageError):
    """A picture whose decoding died, or took longer or more memory than it may; nothing is stored of it."""

    status = 422


class NoDecoderError(ServiceError):
    """No process that decodes pictures can be started."""

    status = 503
    retry_after = 1


class NoTokenError(ServiceError):
    """A request without a valid token or session."""

    status = 401


class RoleError(ServiceError):
    """A request by somebody whose role does not allow it, or one that another web page may have sent."""

    status = 403


class TooManyFailuresError(ServiceError):
    """Too many wrong tokens from one address."""

    status = 429
    retry_after = 60
