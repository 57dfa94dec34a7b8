"""`blemish fit-prompts`: learn prompts that name no product, on the defects of other products."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Cache, Device, DeviceName, given_path
from blemish.utils.validation import LARGEST_SEED


def fit_prompts(
    datasets: Annotated[
        list[Path],
        typer.Argument(metavar="DATASET", help="Datasets with labels and masks of other products.", parser=given_path),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="PROMPTS", help="The file that they go into.", parser=given_path),
    ],
    categories: Annotated[
        list[str] | None, typer.Option("--category", metavar="C,C", help="These categories alone.")
    ] = None,
    encoder: Annotated[
        str, typer.Option("--encoder", metavar="NAME|FOLDER", help="A CLIP; `blemish list encoders`.")
    ] = "clip-vit-l14-336",
    image_size: Annotated[int, typer.Option("--image-size", metavar="N", min=1, help="Side in pixels.")] = 518,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="How often each picture is seen.")] = 15,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Pictures a step.")] = 8,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", min=0, max=LARGEST_SEED, help="Decides all randomness.")
    ] = 111,
    device: DeviceName = Device.auto,
    cache: Cache = None,
) -> None:
    """Learn two prompts, about good and damaged objects in general, from labelled test pictures of other products.

    The file PROMPTS then inspects products that it never saw: blemish fit --zero-shot NAME --prompts PROMPTS.
    """
    import math

    from blemish.cli.console import say, say_where
    from blemish.cli.evaluate import categories_of
    from blemish.cli.progress import progress_bar

    check_target(out)
    samples = [sample for category in categories_of(datasets, categories) for sample in category.test]

    from blemish import encoders
    from blemish.encoders.feature_cache import with_disk_cache
    from blemish.encoders.image_text.learned_prompts import write_prompts
    from blemish.model.prompt_fitting import PromptTraining
    from blemish.model.prompt_fitting import fit_prompts as learn

    how = PromptTraining(epochs=epochs, batch_size=batch_size, image_size=image_size, seed=seed)
    built = encoders.build(encoder, alignment="v-v-layers", device=device.value)
    if cache is not None:
        built = with_disk_cache(built, cache)
    with progress_bar("learning", epochs * math.ceil(len(samples) / batch_size)) as progress:
        found = learn(built, samples, how, progress)
    write_prompts(out, found.learned, found.embeddings, found.facts)
    first, last = float(found.loss[0]), float(found.loss[-1])
    say(f"Learned from {len(samples)} pictures in {epochs} epochs; loss {first:.3g} → {last:.3g}.")
    say_where("Saved", out)


def check_target(file: Path) -> None:
    """Raise OutputError where no file can be written at `file`; nothing is left there."""
    from tempfile import TemporaryFile

    from blemish.errors import OutputError
    from blemish.utils.atomic import output_errors
    from blemish.utils.paths import shown

    with output_errors(file):
        if file.is_dir():
            raise OutputError("a file that the prompts go into", f"the folder '{shown(file)}'", "name a file inside it")
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        with TemporaryFile(dir=folder):  # missing folders are made inside it
            pass
