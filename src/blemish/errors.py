"""The error tree. A message states three facts: what was expected, what came, what to do about it."""

from __future__ import annotations


class BlemishError(Exception):
    """Any error that blemish raises on purpose.

    Parameters are the three facts; `str(error)` joins them into one readable line.
    """

    def __init__(self, expected: str, got: str, do: str) -> None:
        super().__init__(f"expected {expected}; got {got}; {do}")
        self.expected, self.got, self.do = expected, got, do

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.expected, self.got, self.do)


class ImageError(BlemishError):
    """An image that cannot be read or used. `expected` names the file."""


class DatasetError(BlemishError):
    """A folder that does not hold what is needed (no good images, masks missing…)."""


class SettingsError(BlemishError):
    """A setting of unknown name or impossible value."""


class WeightsError(BlemishError):
    """Encoder weights that are missing, altered, or not finite."""


class MissingPackageError(BlemishError):
    """An optional package that is not installed; `do` is the pip line that brings it."""


class ModelError(BlemishError):
    """A saved model folder that is incomplete, altered, or of a newer format."""


class NotFittedError(BlemishError):
    """`inspect` or `save` before `fit`."""


class OutputError(BlemishError):
    """A result that cannot be written (read-only folder, full disk)."""


class DataWarning(UserWarning):
    """An image that can be read, but probably is not what it seems; `str()` is a sentence that names the file.

    `kind` is one of `KINDS`, `file` names the image.
    """

    KINDS = ("scale", "range", "constant", "two-level", "pages", "near-duplicate", "incomplete", "resolution", "size")

    def __init__(self, kind: str, file: str, text: str) -> None:
        super().__init__(kind, file, text)
        self.kind, self.file, self.text = kind, file, text

    def __str__(self) -> str:
        return f"'{self.file}' {self.text}"
