"""A memory of good patches that know what else lies in their image: wrong co-occurrences, not only wrong textures.

Ishida et al., SA-PatchCore, IEEE Access 2023: PatchCore's memory over features that also carry context gathered by
self-attention over all patches of the image. The attention here learns nothing: queries, keys and values are the
patches themselves. What it gathers changes with how much of each kind of patch there is, so a part that is right by
itself, in the wrong number or beside the wrong one, lies far from every good patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.base import Needs, Progress, part_of, settings_of, under
from blemish.detectors.categories import answering, key_of, names_of
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.patches import Grid, joined
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import check, is_number

_LEAST_SPREAD = 1e-3  # added to a channel's standard deviation, which may be 0


class SAPatchCore:
    """A `PatchCore` over patches joined with what they attend to (`sa-patchcore`).

    Patches x_i are the encoder's layers, averaged over `aggregation` × `aggregation` and joined on `grid`, channels
    divided by their standard deviation over the category's good patches (`scales_`). With u the same at unit length,
    patch i gathers c_i = Σ_j softmax_j(u_i·u_j / τ) x_j for each τ of `temperatures`: a low one looks at patches of its
    own kind alone, a very high one is the image's mean. Remembered and compared is (x_i, context · c_i, …); `context`
    0 is the plain memory bank.

    `layers`, `coreset`, `least_patches`, `most_patches`, `sample`, `rotations`, `most_copies`, `pooling`, `image_size`,
    `square`, `framing`, `seed`: as in `PatchCore`. Quarter turns leave a square image's composition as it is; other
    turns reflect what the corners lack, which may show a part twice.
    """

    def __init__(
        self,
        *,
        temperatures: Sequence[float] = (0.5,),
        context: float = 8.0,
        layers: LayerRole = "pair",
        aggregation: int = 3,
        grid: Grid = "coarsest",
        coreset: float = 0.25,
        least_patches: int = 4096,
        most_patches: int = 16384,
        sample: int = 65536,
        rotations: int = 4,
        most_copies: int = 128,
        pooling: str = "top:0.03",
        image_size: int = 224,
        square: bool = True,
        framing: str = "plain",
        seed: int = 0,
    ) -> None:
        self.temperatures, self.context = list(temperatures) if _listed(temperatures) else temperatures, context
        self.layers, self.aggregation, self.grid = layers, aggregation, grid
        self.coreset, self.least_patches, self.most_patches, self.sample = coreset, least_patches, most_patches, sample
        self.rotations, self.most_copies, self.pooling = rotations, most_copies, pooling
        self.image_size, self.square, self.framing, self.seed = image_size, square, framing, seed
        self._check()
        shared = {name: value for name, value in self.settings.items() if name not in ("temperatures", "context")}
        self._bank = PatchCore(**shared | {"reweight": 0})

    @property
    def needs(self) -> Needs:
        return self._bank.needs

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Measure the channels of each category, then remember its good patches in context. Walks `batches` twice."""
        self.scales_ = self._measured(batches)
        self._bank.fit(self._in_context(batches), progress)
        return self

    def score(self, features: Features) -> PatchScores:
        """Distances to the nearest remembered patch in its context `(B, h, w)`."""
        if not hasattr(self, "scales_"):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good pictures first")
        return self._bank.score(self._wrapped(features))

    def state(self) -> dict[str, Tensor]:
        """The bank under `bank.…`, the channels' scales under `scale/…`."""
        bank = under("bank", self._bank.state())
        return bank | {key_of("scale", name): scale for name, scale in self.scales_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        self._bank.load_state(part_of(state, "bank"))
        kinds = {key: key.partition("/") for key in state}
        self.scales_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "scale"}
        return self

    def _measured(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """The standard deviation of each channel over the good patches, times √D, `(D,)` by category."""
        sums: dict[str, Tensor] = {}  # (3, D): how many, their sum, the sum of their squares
        for batch in batches:
            for name, patches in zip(names_of(batch.features), self._patches(batch.features), strict=True):
                rows = patches.flatten(0, 1).double()
                found = torch.stack([torch.full_like(rows[0], len(rows)), rows.sum(0), rows.square().sum(0)])
                sums[name] = sums[name] + found if name in sums else found
        if not sums:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        return {name: _spread(*found) * found.shape[1] ** 0.5 for name, found in sums.items()}

    def _in_context(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return (replace(batch, features=self._wrapped(batch.features)) for batch in batches)

    def _wrapped(self, features: Features) -> Features:
        """Features whose one layer holds the patches beside their contexts, `(B, h, w, D · (1 + temperatures))`."""
        names = names_of(features)
        images = [self._joined(name, patches) for name, patches in zip(names, self._patches(features), strict=True)]
        return replace(features, layers={RGB: (torch.stack(images),)})

    def _joined(self, category: str, patches: Tensor) -> Tensor:
        """One image's patches `(h, w, D)` beside their contexts."""
        scaled = patches / self.scales_[answering(category, self.scales_)].to(patches.device)
        rows = scaled.flatten(0, 1)  # (N, D)
        gathered = [self.context * one for one in contexts(rows, self.temperatures)] if self.context else []
        return torch.cat([rows, *gathered], dim=1).unflatten(0, patches.shape[:2])

    def _patches(self, features: Features) -> Tensor:
        return joined(features.layers[RGB], self.aggregation, self.grid)

    def _check(self) -> None:
        numbers = _listed(self.temperatures) and all(is_number(t) and 0 < t < torch.inf for t in self.temperatures)
        wishes = (
            ("temperatures", "numbers above 0, at least one", numbers and len(self.temperatures) > 0),
            ("context", "a number ≥ 0", is_number(self.context) and 0 <= self.context < torch.inf),
        )
        check(self, *wishes)


def contexts(rows: Tensor, temperatures: Sequence[float]) -> list[Tensor]:
    """What each of one image's patches `(N, D)` gathers from all of them, `(N, D)` for each temperature."""
    unit = normalize(rows, dim=1)
    alike = unit @ unit.T  # (N, N)
    return [(alike / temperature).softmax(dim=1) @ rows for temperature in temperatures]


def _spread(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Standard deviation `(D,)` float32 from sums over rows."""
    variance = squares / count - (total / count).square()
    return variance.clamp_min(0).sqrt().float() + _LEAST_SPREAD


def _listed(value: object) -> bool:
    return isinstance(value, (list, tuple))
