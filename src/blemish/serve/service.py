"""The service without the web: everything that happens to products, models, parts and people, behind one object."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from blemish.errors import OutputError
from blemish.monitoring.audit import audit_draw
from blemish.serve.catalog import Catalog
from blemish.serve.core import Core, ServiceSettings
from blemish.serve.feedback import Feedback
from blemish.serve.learning import Learning
from blemish.serve.limits import Limits
from blemish.serve.line import Line
from blemish.serve.models import Models
from blemish.serve.parts import Parts
from blemish.serve.rendering import Renderer
from blemish.serve.retention import Retention
from blemish.serve.statistics import LineStatistics
from blemish.serve.users import Users
from blemish.serve.watch import Watch
from blemish.serve.webhooks import Webhooks
from blemish.utils.locking import exclusive
from blemish.utils.paths import expanded, shown


class Service:
    """A line's data folder, opened by this process alone; a context manager.

    Each part is one idea: `catalog` (products, good pictures), `models` (versions), `line` (inspections), `parts`
    (records and reviews), `limits`, `learning`, `feedback` (what reviews change), `watch` (drift), `users`, `webhooks`,
    `renderer` (pictures), `statistics`; `core` has the journal and the look-ups. Many threads may use all of them.
    """

    def __init__(self, folder: Path, settings: ServiceSettings) -> None:
        self.core = Core.of(folder, settings)
        self.settings, self.events = settings, self.core.events
        self.retention: Retention | None = None  # None: nothing is ever deleted
        self.catalog = Catalog(self.core)
        self.models = Models(self.core)
        self.parts = Parts(self.core)
        self.limits = Limits(self.core, self.models, self.parts)
        self.users = Users(self.core)
        self.renderer = Renderer(self.core, self.models)
        self.statistics = LineStatistics()
        self.webhooks = Webhooks(self.core)
        self.watch = Watch(self.core, self.catalog, self.models)
        self.line = Line(
            self.core,
            self.catalog,
            self.models,
            self.parts,
            audit_draw,
            self.watch.measured,
            [self.watch.put, self.webhooks.put],
        )
        self.learning = Learning(self.core, self.catalog, self.models)
        self.feedback = Feedback(self.core, self.models, self.limits, self.learning)
        self._end_statistics = self.events.subscribe(self.statistics.listen)
        self._stack = ExitStack()

    @classmethod
    def open(cls, folder: str | Path, settings: ServiceSettings | None = None) -> Self:
        """Open a data folder, empty or not.

        Raises OutputError where another process has it open, or its database cannot be written.
        """
        folder = expanded(folder).absolute()
        with ExitStack() as stack:
            stack.enter_context(exclusive(folder, "--data"))
            try:
                self = cls(folder, settings or ServiceSettings())
            except sqlite3.Error as error:
                raise OutputError(
                    f"a database that can be written in '{shown(folder)}'",
                    str(error),
                    "see that its disk has room, or name another folder with --data",
                ) from error
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Finish what is at work, and close the folder."""
        self.learning.close()
        self.line.close()
        self.webhooks.close()
        self._end_statistics()
        self.core.decoders.close()
        self.core.store.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
