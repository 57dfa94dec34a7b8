"""From a fitted model to a bundle: graphs of all sizes of frame, facts, parity, samples; whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from blemish.data.readers.base import pixel_limit
from blemish.detectors.base import Exportable
from blemish.encoders.points.point_encoder import DescriptorEncoder
from blemish.encoders.precision import precision_of
from blemish.errors import ModelError, OutputError, SettingsError
from blemish.export.graph import (
    OUTPUTS,
    InspectionGraph,
    distance_threshold,
    exportable,
    graph_thresholds,
    has_pooling,
)
from blemish.export.onnx_format import OPSETS, SharedWeights, in_int8, onnx_graph, set_numbers
from blemish.export.openvino_format import save_openvino
from blemish.export.parity import Parity, compare, parity_images, parity_of
from blemish.model.fitted import FittedModel
from blemish.preprocessing.framing import Frame, Framing, size_of
from blemish.runtime.bundle import (
    ARRAYS,
    FACTS,
    FORMAT,
    IGNORED,
    OWN_HASH,
    PARITY,
    README,
    SAMPLES,
    VERSION,
    WEIGHTS,
    EngineName,
    facts_sha256,
)
from blemish.runtime.engines import PACKAGES, engine_package, load_engine
from blemish.runtime.runtime import Runtime
from blemish.scoring.calibration import Calibration
from blemish.scoring.tabulated_calibration import TabulatedCalibration
from blemish.types import POINTS
from blemish.utils.atomic import atomic_folder, output_errors
from blemish.utils.hashing import file_sha256
from blemish.utils.optional import need
from blemish.utils.paths import expanded, shown
from blemish.utils.progress import Progress

EXTRAS = {"onnx": "export", "openvino": "openvino"}  # of blemish, with what an export takes
KINDS = {"good.png": False, "made-up-defect.png": True}  # samples, and whether they show a synthetic anomaly


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How a model is exported.

    `format`: of the graphs and the engine that runs them. `opset`: of ONNX operations, 18 for older engines. `int8`:
    the linear layers of a transformer in 8 bits. `category`: of a model of several. `pictures`: sizes (width, height)
    of images that are inspected, where the good ones had several. `force`: export although results differ by more than
    parity.LIMITS. Raises SettingsError for what is not there.
    """

    format: EngineName = "onnx"
    opset: int = 18
    int8: bool = False
    category: str | None = None
    pictures: tuple[tuple[int, int], ...] = ()
    force: bool = False

    def __post_init__(self) -> None:
        if self.format not in PACKAGES:
            raise SettingsError(f"a format among {', '.join(PACKAGES)}", repr(self.format), "choose one of them")
        if self.opset not in OPSETS:
            raise SettingsError(f"an opset among {OPSETS}", str(self.opset), "choose one of them")
        if self.int8 and self.format != "onnx":
            raise SettingsError("--int8 with --format onnx", f"format {self.format}", "leave one of them out")


def export_bundle(
    model: FittedModel, folder: str | Path, settings: ExportSettings | None = None, progress: Progress | None = None
) -> Parity:
    """Write the model as a bundle to `folder`, in place of an older one; returns how far results are from the model's.

    Raises SettingsError for a model that cannot be exported or, without `force`, whose bundle would answer differently;
    ModelError for one without a threshold, or without good images to compare by; OutputError where `folder` holds no
    bundle and anything else, or cannot be written. Then nothing is left, and an older bundle stays. Other files beside
    an older bundle are kept.
    """
    settings = settings or ExportSettings()
    target = check_target(folder)
    category = check_category(model, settings.category)
    check_exportable(model, category)
    need(PACKAGES[settings.format], EXTRAS[settings.format], "exporting")
    sizes = frame_sizes(model.framing_of(category), settings.pictures)
    calibration, images = calibration_of(model, category), parity_images(model, category, sizes)
    with atomic_folder(target, owned=bundle_files(target)) as partial:
        graphs = write_graphs(model, category, sizes, partial, settings, progress)
        files = finished(graphs, settings.format, calibration)
        engines = {size: load_engine(settings.format, path) for size, path in files.items()}
        compared = compare(model, engines, category, images)
        parity = parity_of(compared, calibration, distance_threshold(model, category), limits_for(model, settings))
        if not (parity.is_kept or settings.force):
            instead = "leave --int8 out" if settings.int8 else "inspect with the model itself"
            raise SettingsError(
                "an export that answers as the model does",
                parity.words[0].lower() + parity.words[1:],
                f"{instead}, or add --force if that is good enough",
            )
        if parity.factor != 1:  # thresholds are part of the graphs
            files = finished(graphs, settings.format, calibration, parity.factor)
        for path in {*graphs.values(), partial / WEIGHTS} if settings.format == "openvino" else ():
            path.unlink()
        write_facts(model, category, files, partial, settings, parity)
        write_samples(images, partial)
    return parity


def limits_for(model: FittedModel, settings: ExportSettings) -> str:
    """The key of the limits that results must keep: graphs are float32, which a model in bfloat16 is not."""
    if settings.int8:
        return "int8"
    return "bf16" if "bf16" in precision_of(model.encoder) else "float32"


def check_category(model: FittedModel, category: str | None) -> str | None:
    """The category that is exported. Raises SettingsError where it must be named, or is none of the model's."""
    model.check_category(category)
    if category is None and len(model.calibrations) > 1:
        raise SettingsError(
            f"one category of {', '.join(model.categories)}", "none", "name it with --category; a bundle holds one"
        )
    return category if category is not None else next(iter(model.calibrations))


def check_target(folder: str | Path) -> Path:
    """The folder that a bundle goes into, links followed. Raises OutputError where anything but a bundle would go."""
    target = expanded(folder).resolve()
    with output_errors(target):
        if target.is_dir() and any(target.iterdir()) and not holds_bundle(target):
            raise OutputError(
                f"a new or empty folder, or an older bundle, at '{shown(target)}'",
                f"a folder with other files and no {FACTS} of a bundle",
                "name another folder",
            )
    return target


def holds_bundle(folder: Path) -> bool:
    """Whether a bundle was written into `folder`, be it damaged since: its facts begin with their format."""
    try:
        with (folder / FACTS).open("rb") as file:
            return FORMAT.encode() in file.read(64)
    except (FileNotFoundError, IsADirectoryError):
        return False


def bundle_files(folder: Path) -> set[str]:
    """The names in `folder` that are a bundle's."""
    return {FACTS, ARRAYS, PARITY, SAMPLES, README, WEIGHTS, *(path.name for path in folder.glob("graph-*x*.*"))}


def check_exportable(model: FittedModel, category: str | None) -> None:
    """Raise SettingsError for what no graph can hold, ModelError for a model without a threshold; before any work.

    No graph holds: scans, detectors that are not `Exportable`, an ignored area where image scores are not pooled,
    categories that are framed apart. A model on a GPU is to be loaded on the CPU.
    """
    if POINTS in model.modalities:
        raise SettingsError(
            "a model of pictures",
            f"one of measured points: {scans_lack(model)}",
            "inspect scans with the model itself: blemish inspect",
        )
    exportable(model)
    calibration_of(model, category)
    if model.ignored and not has_pooling(model):
        raise SettingsError(
            "a detector whose scores are pooled from patches, where an area is ignored",
            f"{model.settings.detector_name!r}, with an image score of its own",
            "fit with --set reweighting_neighbours=0, or without --ignore",
        )
    if model.recognition_framing is not None or model.framed_otherwise:
        raise SettingsError(
            "a model whose categories are framed alike",
            f"{len(model.framings)} categories, each framed in its own way",
            "fit one model for each category, and export each",
        )
    if (device := torch.device(getattr(model.encoder, "device", "cpu"))).type != "cpu":
        raise SettingsError(
            "a model on the CPU",
            f"one on {device}",
            "save it, and export what Inspector.load(FOLDER, device='cpu') gives",
        )


def scans_lack(model: FittedModel) -> str:
    """What a bundle of a model of scans would lack: of the detector, of the encoder of points, or of the runtime."""
    detector, points = model.settings.detector_name, getattr(model.encoder, "points", None)
    if not isinstance(model.detector, Exportable):
        return f"no graph can hold the scores of {detector!r}"
    if not isinstance(points, DescriptorEncoder):
        return f"points are described outside of the graph, and {getattr(points, 'name', '?')!r} takes torch for it"
    return f"{detector!r} has a graph, but blemish-runtime can neither frame scans nor describe points yet"


def calibration_of(model: FittedModel, category: str | None) -> Calibration:
    """The calibration of a category. Raises ModelError for a model that has seen no good image."""
    found = model.calibrations[category]
    if not len(found.scores):
        raise ModelError(
            "a model with a limit",
            "one that has seen no good picture yet",
            "calibrate it first: blemish calibrate MODEL GOOD",
        )
    return found


def frame_sizes(framing: Framing, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """All sizes (height, width) of frames that graphs are made for: those of the good images' view, and of `pictures`.

    Raises SettingsError where neither says how large whole pictures are, which those without a part to crop to are seen
    as; and for a size that no picture may have.
    """
    for width, height in pictures:
        if width * height > (most := pixel_limit()):
            raise SettingsError(f"pictures of at most {most:,} pixels", f"{width}x{height}", "name their real size")
    given = [framing.frame(np.zeros((height, width, 3), np.uint8)).input_size for width, height in pictures]
    sizes = list(dict.fromkeys([*framing.sizes(), *given]))
    view = getattr(framing, "view_", None)
    if not sizes or (not given and view is not None and view.size is None):
        raise SettingsError(
            "good pictures of one size, or the sizes that will be inspected",
            "good pictures of several sizes" + ("; one that shows no part is seen whole" if sizes else ""),
            "name each size with --picture, such as --picture 640x480",
        )
    return [(int(height), int(width)) for height, width in sizes]


def write_graphs(
    model: FittedModel,
    category: str | None,
    sizes: Sequence[tuple[int, int]],
    folder: Path,
    settings: ExportSettings,
    progress: Progress | None,
) -> dict[tuple[int, int], Path]:
    """The graph of each size, as ONNX files in `folder` that share their weights."""
    weights, files = SharedWeights(folder), {}
    for done, size in enumerate(sizes, start=1):
        graph = onnx_graph(InspectionGraph(model, category, size), settings.opset)
        graph = in_int8(graph, folder) if settings.int8 else graph
        files[size] = weights.save(graph, f"graph-{size[1]}x{size[0]}.onnx")
        if progress:
            progress(done, len(sizes), {})
    return files


def finished(
    graphs: Mapping[tuple[int, int], Path], engine: EngineName, calibration: Calibration, factor: float = 1.0
) -> dict[tuple[int, int], Path]:
    """The graphs as files of the engine, with the thresholds of scores `factor` times as large as the model's."""
    thresholds = {name: factor * value for name, value in graph_thresholds(calibration).items()}
    facts = model_api_facts(calibration, factor)
    for path in graphs.values():
        set_numbers(path, thresholds, facts)
    if engine == "onnx":
        return dict(graphs)
    return {size: save_openvino(path, path.with_suffix(".xml"), facts) for size, path in graphs.items()}


def model_api_facts(calibration: Calibration, factor: float) -> dict[str, Any]:
    """What Intel's ModelAPI reads: thresholds, the task, and that pixels need no preparation."""
    return {
        "model_type": "AnomalyDetection",
        "task": "segmentation",
        "image_threshold": factor * calibration.threshold,
        "pixel_threshold": factor * calibration.region_threshold,
        "normalization_scale": factor * calibration.threshold,
        "reverse_input_channels": True,
        "mean_values": "0 0 0",
        "scale_values": "1 1 1",
        "resize_type": "standard",
        "labels": "Normal Anomaly",
    }


def write_facts(
    model: FittedModel,
    category: str | None,
    files: Mapping[tuple[int, int], Path],
    folder: Path,
    settings: ExportSettings,
    parity: Parity,
) -> None:
    """`arrays.npz`, `parity.json`, README.md and, last, `bundle.json` with the hashes of all files."""
    import blemish

    framing = model.framing_of(category)
    ignored = model.ignored_in(category)
    arrays: dict[str, Any] = {f"framing.{name}": np.asarray(array) for name, array in framing.state().items()}
    np.savez(folder / ARRAYS, **arrays | ({} if ignored is None else {IGNORED: ignored}))
    (folder / PARITY).write_text(json.dumps(parity.to_dict(), indent=2) + "\n", encoding="utf-8")
    engine = f"{PACKAGES[settings.format]} {engine_package(settings.format).__version__}"
    (folder / README).write_text(readme(model, category, settings, parity, engine), encoding="utf-8")
    calibration = calibration_of(model, category)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "blemish": blemish.__version__,
        "engine": settings.format,
        "engine_version": engine,
        "precision": "f32",
        "int8": settings.int8,
        "opset": settings.opset,
        "category": category,
        "detector": {"name": model.settings.detector_name, "settings": model.detector.settings},
        "encoder": {
            "name": model.encoder.name,
            "weights": model.encoder.weights_sha256,
            "licence": model.encoder.licence,
        },
        "framing": {"name": model.settings.framing, "settings": framing.settings},
        "full_scale": model.full_scale.to_dict(),
        "pooling": model.detector.needs.pooling if has_pooling(model) else None,
        "recognition": {"threshold": distance_threshold(model, category)},
        "calibration": TabulatedCalibration.of(calibration, parity.factor).to_dict(),
        "held_out_scores": (parity.factor * calibration.scores).tolist(),
        "outputs": list(OUTPUTS),
        "graphs": [{"height": height, "width": width, "file": path.name} for (height, width), path in files.items()],
        "files": {
            path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
            if path.is_file()
        },
    }
    facts = json.loads(json.dumps(facts, default=str))  # hashed as it is read back
    (folder / FACTS).write_text(json.dumps(facts | {OWN_HASH: facts_sha256(facts)}) + "\n", encoding="utf-8")


def write_samples(images: Sequence[tuple[np.ndarray, bool]], folder: Path) -> None:
    """`samples/`: a framed good picture and one with a made-up defect, and the bundle's results, to check it by.

    Both are of the `images` that parity is measured on: what a memory bank holds scores rounding.
    """
    samples = {name: next(i for i, is_defective in images if is_defective == wanted) for name, wanted in KINDS.items()}
    (folder / SAMPLES).mkdir()
    runtime, expected = Runtime(folder), {}
    for name, image in samples.items():
        Image.fromarray(image).save(folder / SAMPLES / name)
        found = runtime.predict(Frame(image, size_of(image)), name)
        expected[name] = {"score": found.score, "p_value": found.p_value, "verdict": found.verdict}
    (folder / SAMPLES / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


def readme(model: FittedModel, category: str | None, settings: ExportSettings, parity: Parity, engine: str) -> str:
    """What a person who finds the folder should know."""
    import blemish

    what = f"of the category {category!r}" if category else "of one kind of part"
    return f"""# An inspection model {what}

Exported by blemish for {engine}{", linear layers in int8" if settings.int8 else ""}.

    pip install 'blemish_runtime-{blemish.__version__}-py3-none-any.whl[{settings.format}]'
    blemish-run . PICTURES... -o RESULTS

The package comes from a clone of blemish: `pip wheel ./runtime --no-deps`. In Python:
`from blemish.runtime import Runtime; Runtime("this folder").inspect("part.png")`.

{parity.words}
{calibration_of(model, category).words}

Detector {model.settings.detector_name}, encoder {model.encoder.name} (its weights: {model.encoder.licence}).
`bundle.json` holds preprocessing, thresholds and hashes; `parity.json` the figures above and their limits;
`samples/` two framed pictures, a good one and one with a made-up defect, with the results that they must give.

The graphs take framed pictures `images` (batch, height, width, 3), uint8 RGB, and give `pred_score`, `pred_label`,
`anomaly_map`, `pred_mask`; how a picture is framed, `bundle.json` says, and blemish-runtime does.
"""
