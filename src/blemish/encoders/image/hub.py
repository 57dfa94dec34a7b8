"""Where a model folder lies: given, in the hub's local cache, or downloaded into it; fast to fail when offline."""

from __future__ import annotations

import json
import math
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blemish.encoders.availability import absent_shards, hub_snapshot
from blemish.encoders.image.frozen import IMAGENET_MEAN, IMAGENET_STD
from blemish.encoders.weights import missing
from blemish.errors import WeightsError
from blemish.utils.hashing import json_sha256
from blemish.utils.paths import expanded

TIMEOUT = 5.0  # seconds to wait for the hub's first answer
HALF = (0.5, 0.5, 0.5)
# Of a config, what decides no features: what has written it, the number format on disk, names of classes. Names that
# begin with "_" decide none either.
BOOKKEEPING = ("transformers_version", "architectures", "torch_dtype", "dtype", "id2label", "label2id", "problem_type")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def find_model(name: str, source: str) -> Path:
    """The folder of the model `source`, a hub id or a path.

    A hub id is looked for in the local cache first, and downloaded only if it is not there and HF_HUB_OFFLINE is not
    set. Raises `WeightsError` with the ways out, within seconds when there is no network.
    """
    folder = expanded(source)
    if folder.is_dir():
        weight_files(folder)
        return folder
    if source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise missing(name, f"no folder {source}", "hf download OWNER/MODEL --local-dir FOLDER")
    return hub_snapshot(source) or _download(name, source)


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a model folder, sorted; `WeightsError` when the config or the weights are not all there."""
    _check_shards(folder)
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    for needed, found in (("config.json", (folder / "config.json").is_file()), ("model.safetensors", bool(files))):
        if not found:
            raise WeightsError(
                f"a model folder with config.json and model.safetensors at {folder}",
                f"a folder without {needed}",
                "give a folder written by save_pretrained or `hf download`",
            )
    return files


def _check_shards(folder: Path) -> None:
    """Raise `WeightsError` where weights lie in several files, and some that their index names are not there."""
    for name in ("model.safetensors", "pytorch_model.bin"):  # the order in which transformers looks for them
        if (folder / name).is_file():
            return
        if (index := folder / f"{name}.index.json").is_file():
            absent = absent_shards(index)
            if absent == []:
                return
            raise WeightsError(
                f"all files of weights that {index.name} names, in {folder}",
                "an index that cannot be read" if absent is None else f"none of the name {', '.join(absent)}",
                "copy or download the rest as well",
            )


def normalisation(folder: Path, model_type: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of RGB in [0, 1]: the folder's own preprocessor settings, else those of the model's family.

    Raises `WeightsError` for a preprocessor_config.json that cannot be read, or whose numbers normalise nothing.
    """
    file = folder / "preprocessor_config.json"
    if os.path.lexists(file):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            given = facts.get("image_mean"), facts.get("image_std")
            if given != (None, None):
                return _three_numbers(given[0]), _three_numbers(given[1], above=0)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"a preprocessor_config.json with an image_mean and an image_std of three numbers at {file}",
                f"{type(error).__name__}: {error}",
                "download it again; only where the model came without one, delete it",
            ) from error
    if model_type.startswith("siglip"):
        return HALF, HALF
    return (CLIP_MEAN, CLIP_STD) if model_type.startswith("clip") else (IMAGENET_MEAN, IMAGENET_STD)


def _three_numbers(values: Sequence[float], above: float = -math.inf) -> tuple[float, ...]:
    """A finite number above `above` for each of red, green and blue. Raises ValueError or TypeError for others."""
    found = tuple(map(float, values))
    if len(found) != 3 or not all(math.isfinite(value) and value > above for value in found):
        raise ValueError(f"{values!r}")
    return found


def config_hash(file: Path) -> str:
    """sha256 of what a model's config file says about its features, whatever has written it.

    Raises `WeightsError` where it cannot be read.
    """
    try:
        return json_sha256(_decisive(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"a readable {file.name} in {file.parent}", f"{type(error).__name__}: {error}", "download it again"
        ) from error


def _decisive(config: Any) -> Any:
    """A config, or a part of one, without `BOOKKEEPING`."""
    if not isinstance(config, dict):
        return config
    return {
        name: _decisive(value) for name, value in config.items() if name not in BOOKKEEPING and not name.startswith("_")
    }


def _download(name: str, hub_id: str) -> Path:
    bring = f"hf download {hub_id}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise missing(name, f"{hub_id} is not in the local hub cache and HF_HUB_OFFLINE is set", bring)
    _check_reachable(name, hub_id, bring)
    from huggingface_hub import snapshot_download

    try:
        patterns = ["config.json", "preprocessor_config.json", "model*.safetensors*"]
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns))
        if not list(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(hub_id, allow_patterns=[*patterns, "pytorch_model*.bin*"]))
    except Exception as error:  # the hub client raises many kinds of error
        raise missing(name, f"the download of {hub_id} failed ({type(error).__name__}: {error})", bring) from error
    weight_files(folder)
    return folder


def _check_reachable(name: str, hub_id: str, bring: str) -> None:
    """One short request for the model's config: the hub's own client retries for minutes when it is out of reach."""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    request = urllib.request.Request(f"{host}/{hub_id}/resolve/main/config.json", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise missing(name, f"the hub knows no model {hub_id}", bring) from error
        # 401 and 403: a gated model; the client knows the user's token and gives the final word.
    except (OSError, ValueError) as error:
        raise missing(
            name, f"{hub_id} is not in the local hub cache and the hub is out of reach ({error})", bring
        ) from error
