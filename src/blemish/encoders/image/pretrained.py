"""A transformers model read from a folder: nothing is downloaded, nothing may be missing or not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from blemish.encoders.weights import check_finite
from blemish.errors import BlemishError, WeightsError


def read_pretrained(folder: Path, choose: Callable[[Any], tuple[Any, Any]], unused: Sequence[str] = ()) -> Any:
    """The float32 model in `folder`, in inference mode; every tensor it uses comes from the file and is finite.

    `choose` maps the folder's config to the class to load and the config to give it. Tensors whose name holds one of
    `unused` may be absent.
    """
    import transformers

    try:
        kind, config = choose(transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
        with without_bars():
            model, info = kind.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
    except BlemishError:
        raise
    except Exception as error:  # a damaged file surfaces as one of many kinds of error
        raise WeightsError(
            f"a model folder with config.json and model.safetensors at {folder}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "download it again or give another folder",
        ) from error
    absent = sorted(key for key in info["missing_keys"] if not any(part in key for part in unused))
    if absent:
        raise WeightsError(
            f"all weights of a {config.model_type} model in {folder}",
            f"{len(absent)} tensors missing, the first is {absent[0]!r}",
            "download the model again or check that its config.json belongs to it",
        )
    check_finite(((key, tensor) for key, tensor in model.state_dict().items()), str(folder))
    return model.eval()


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws no progress bars of its own meanwhile; reading a file takes a moment."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
