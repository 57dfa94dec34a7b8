"""Does every detector run on a GPU, how fast, in how much memory, and does it score there as on a CPU?

    PYTHONPATH=src python benchmarks/gpu.py -o gpu.csv                    # within 8 minutes on a fresh machine
    PYTHONPATH=src python benchmarks/gpu.py -o gpu.csv --device cpu --tiny  # to try the script itself, under a minute

Needs torch and transformers, no network, no dataset and no weights: images and scans are generated (those of
tests/golden/make_scores.py), and a transformer or a convolutional network whose weights are not installed is drawn at
random in its true size (column `weights`), which changes no time and no memory. Four parts, each with its own share of
`--seconds`:

`correctness`  every registered detector at 112 px and 8 steps: fitted on the CPU, saved, loaded for the GPU; the
               largest relative differences of scores and maps must be at most TOLERANCE, and all verdicts agree.
`default`      what `Inspector()` takes, at its own size.
`published`    FoundAD with a ViT-B/16 at 512 px, and CFM and the text-guided detector at 224 px with a ViT-B/8 and
               Point-MAE, beside what their papers state (an RTX 3090, and a GPU that is not named).
`compile`      the default's transformer by itself: as it is, by torch.compile, and as a CUDA graph.

A row is written as soon as it is measured. What fails, or has no time left, is a row with its `error`; the exit code is
1 if there is one that failed, if verdicts differ, or scores by more than TOLERANCE. Columns:
benchmarks/results/README.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "golden"))

from image_text_parts import write_model
from make_scores import SCANS, part, sample, scan

from blemish import Inspector, Sample, encoders
from blemish.detectors import factory
from blemish.encoders.availability import availability
from blemish.encoders.points.point_mae_weights import published_names, write_folder
from blemish.encoders.points.point_transformer import PointTransformer
from blemish.encoders.text.factory import availability as text_availability
from blemish.registry import DETECTORS, ENCODERS, joined_names

HEAD = (
    *("part", "detector", "encoder", "weights", "way", "image_size", "steps", "n_train", "device", "torch"),
    *("fit_seconds", "ms_batch_1", "ms_batch_16", "images_per_second", "fit_peak_mb", "inspect_peak_mb"),
    *("published_ms", "published_mb", "score_difference", "map_difference", "verdicts_agree", "error"),
)
Row = dict[str, Any]
TOLERANCE = 0.01  # cuDNN convolves in TF32, which keeps 10 bits; networks of 12 blocks add up to some 0.001 of it
SHARES = {"correctness": 0.4, "default": 0.15, "published": 0.25, "compile": 0.2}  # of the time
EFFICIENTNET, VIT, POINTS = "efficientnet-lite2", "dinov3-vits16", "dino-vitb8+point-mae"
# Milliseconds an image and 10⁶ bytes that papers state: FoundAD, arXiv 2510.01934, on an RTX 3090; text-guided and CFM,
# arXiv 2604.22899, table VII: 10.1 and 21.8 images a second.
PUBLISHED: Mapping[str, tuple[str, int, float, float | None]] = {
    "foundad": ("dinov3-vitb16", 512, 128.7, 1386),
    "text-guided": (POINTS, 224, 1000 / 10.1, 1090),
    "cfm": (POINTS, 224, 1000 / 21.8, None),
}


@dataclass(frozen=True)
class Case:
    """A detector to be measured; `settings` are further arguments of `Inspector`.

    `train` and `tested` count the images to fit on and to take times on.
    """

    detector: str
    encoder: str
    settings: Mapping[str, Any]
    train: int
    tested: int

    def inspector(self, device: str) -> Inspector:
        """The method, not fitted."""
        return Inspector(self.encoder, self.detector, device=device, **self.settings)

    def samples(self, count: int, seed: int, both: bool = False) -> list[Sample]:
        """Normal images or scans; every second one defective where `both`."""
        flags = [both and i % 2 == 1 for i in range(count)]
        if self.detector in SCANS:
            return [sample(*scan(seed + i, flag), "dome") for i, flag in enumerate(flags)]
        return [sample(part("disc", seed + i, flag), category="disc") for i, flag in enumerate(flags)]

    @property
    def facts(self) -> Row:
        """The columns that are known before anything is measured."""
        size = self.settings.get("image_size", "")
        return {
            "detector": self.detector,
            "encoder": "tiny CLIP" if Path(self.encoder).is_dir() else self.encoder,
            "weights": weights_of(self.encoder),
            "image_size": size,
            "steps": self.settings.get("steps", ""),
            "n_train": self.train,
        }


@dataclass(frozen=True)
class Run:
    """Where and how long: `device` "cuda" or "cpu"; `tiny` to try the script; `folder` for what is written."""

    device: str
    tiny: bool
    folder: Path

    def case(self, name: str, encoder: str, settings: Mapping[str, Any], train: int, tested: int) -> Case:
        """A case with what its detector has of the settings."""
        own = factory.build(name).settings
        words: Row = {}
        if "text" in own:
            words = {"text_encoder": "minilm"} if text_availability("minilm").loads else {"text": False}
        kept = {key: value for key, value in settings.items() if key in own or key == "image_size"}
        return Case(name, encoder, kept | words, train, tested)

    def correctness(self, only: Sequence[str]) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """Each detector in its smallest size, by encoders that need no weights."""
        size, steps, train = (56, 1, 3) if self.tiny else (112, 8, 6)
        for name in only:
            needs = factory.build(name).needs
            encoder = "pixels+points-shape" if name in SCANS else "+".join(["pixels"] * len(needs.modalities))
            settings: Row = {"image_size": size, "steps": steps}
            if needs.alignment:
                encoder = str(write_model(self.folder / f"clip-{name}"))
            one = self.case(name, encoder, settings, max(train, needs.min_images), 0)
            if name == "anomalyclip":  # of a file of prompts alone
                one = Case(name, encoder, {**one.settings, "text_encoder": self.prompts(encoder)}, one.train, 0)
            yield one.facts, lambda one=one: compared(one, self.device)  # type: ignore[misc]

    def prompts(self, encoder: str) -> str:
        """A file of prompts learned in one step."""
        from blemish.encoders.image_text.learned_prompts import write_prompts
        from blemish.model.prompt_fitting import PromptTraining, fit_prompts

        mask = np.zeros((104, 120), bool)
        mask[46:62, 50:70] = True
        samples = [
            Sample(part("stripes", i, i == 1), label=i, mask=mask if i else None, category="stripes") for i in (0, 1)
        ]
        built = encoders.build(encoder, alignment="v-v-layers", precision="fp32")
        found = fit_prompts(built, samples, PromptTraining(epochs=1, batch_size=2, image_size=40))
        write_prompts(self.folder / "prompts", found.learned, found.embeddings, found.facts)
        return str(self.folder / "prompts")

    def default(self, only: Sequence[str]) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """The default, from 4 and from 16 images."""
        if self.tiny:
            one = self.case("hybrid", "pixels+pixels", {"image_size": 56}, 3, 2)
            yield one.facts, lambda: timed(one, self.device)
            return
        for train in (4, 16) if "hybrid" in only else ():
            one = self.case("hybrid", default_encoder(), {}, train, 48)
            yield one.facts, lambda one=one: timed(one, self.device)  # type: ignore[misc]

    def published(self, only: Sequence[str]) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """What papers state, as they measured it."""
        for name, (encoder, size, spent, memory) in PUBLISHED.items():
            if name in only:
                small = "pixels+points-shape" if name in SCANS else "pixels"
                settings: Row = {"image_size": 56, "steps": 1} if self.tiny else {"image_size": size, "steps": 100}
                one = self.case(
                    name, small if self.tiny else encoder, settings, 3 if self.tiny else 4, 2 if self.tiny else 32
                )
                known = {"published_ms": spent, "published_mb": "" if memory is None else memory}
                yield one.facts | known, lambda one=one: timed(one, self.device)  # type: ignore[misc]

    def compile(self, only: Sequence[str]) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """A transformer alone in three ways."""
        name, size = ("patches", 64) if self.tiny else (VIT, 448)
        network: list[torch.nn.Module] = []
        images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(self.device)

        def measured(way: str) -> Row:
            if not network:
                network.append(encoders.build(name, device=self.device, precision="fp32").network)  # type: ignore[attr-defined]
            return in_one_way(way, network[0], images, *((3, "eager") if self.tiny else (50, "inductor")))

        for way in ("eager", "torch.compile", "CUDA graph"):
            known = {"detector": "encoder alone", "encoder": name, "image_size": size, "way": way}
            known["weights"] = weights_of(name)
            yield known, lambda way=way: measured(way)  # type: ignore[misc]


def in_one_way(way: str, network: torch.nn.Module, images: torch.Tensor, runs: int, backend: str) -> Row:
    """Milliseconds for one image `(1, 3, H, W)`, peak memory, and the largest difference to eager execution."""
    memory, started = GpuPeak(), time.perf_counter()
    with torch.inference_mode():
        expected = [layer.clone() for layer in network(images)]
        forward: Callable[[torch.Tensor], Sequence[torch.Tensor]] = network
        if way == "torch.compile":
            forward = compiled(network, backend)
        elif way == "CUDA graph":
            forward = graphed(network, images)
        found = [layer.clone() for layer in forward(images)]  # the first call compiles
        prepared = time.perf_counter() - started
        spent = []
        for _ in range(runs):
            synchronise(images)
            begun = time.perf_counter()
            forward(images)
            synchronise(images)
            spent.append(1000 * (time.perf_counter() - begun))
    pairs = zip(found, expected, strict=True)
    return {
        "fit_seconds": prepared,
        "ms_batch_1": float(np.median(spent)),
        "images_per_second": 1000 / float(np.median(spent)),
        "inspect_peak_mb": memory.megabytes(),
        "score_difference": max(relative(a.cpu().numpy(), b.cpu().numpy()) for a, b in pairs),
    }


def compiled(network: torch.nn.Module, backend: str) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
    """The network by torch.compile; raises where no compiler is there."""
    torch._dynamo.reset()
    return torch.compile(network, backend=backend)


def graphed(network: torch.nn.Module, images: torch.Tensor) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
    """The network's kernels recorded once, and launched together. Raises RuntimeError on a CPU."""
    if images.device.type != "cuda":
        raise RuntimeError("CUDA graphs need a GPU")
    held, stream = images.clone(), torch.cuda.Stream()
    with torch.cuda.stream(stream):  # what is made at first use must not be recorded
        for _ in range(3):
            network(held)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = network(held)

    def forward(given: torch.Tensor) -> Sequence[torch.Tensor]:
        held.copy_(given)
        graph.replay()
        return outputs

    return forward


def synchronise(images: torch.Tensor) -> None:
    if images.device.type == "cuda":
        torch.cuda.synchronize()


def default_encoder() -> str:
    """The two encoders of the default: a convolutional and a transformer; drawn ones where there are no weights."""
    return f"{EFFICIENTNET if availability(EFFICIENTNET).loads else 'resnet50'}+{VIT}"


class GpuPeak:
    """The most that the GPU held since the object was made, in 10⁶ bytes; nan without one."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def megabytes(self) -> float:
        return torch.cuda.max_memory_allocated() / 1e6 if self._cuda else float("nan")


def timed(one: Case, device: str) -> Row:
    """Times and peak memory of fitting and of inspecting images in memory."""
    memory, started = GpuPeak(), time.perf_counter()
    inspector = one.inspector(device).fit(one.samples(one.train, 0))
    row: Row = {"fit_seconds": time.perf_counter() - started, "fit_peak_mb": memory.megabytes()}
    tested, memory = [Sample(s.image, s.points) for s in one.samples(one.tested, 100)], GpuPeak()
    spent = {batch: milliseconds(inspector, tested, batch) for batch in (1, 16)}
    return row | {
        "image_size": inspector.image_size,
        "ms_batch_1": spent[1],
        "ms_batch_16": spent[16],
        "images_per_second": 1000 / min(spent.values()),
        "inspect_peak_mb": memory.megabytes(),
    }


def milliseconds(inspector: Inspector, samples: Sequence[Sample], batch: int) -> float:
    """Wall-clock milliseconds an image, after one batch that warms up."""
    list(inspector.inspect_many(samples[:batch], batch_size=batch))
    started = time.perf_counter()
    list(inspector.inspect_many(samples, batch_size=batch))
    return 1000 * (time.perf_counter() - started) / len(samples)


def compared(one: Case, device: str) -> Row:
    """A model fitted on the CPU, there and on the device; and whether it can be fitted on the device at all."""
    good, tested = one.samples(one.train, 0), [Sample(s.image, s.points) for s in one.samples(6, 200, both=True)]
    inspector = one.inspector("cpu").fit(good)
    with tempfile.TemporaryDirectory() as folder:
        other = Inspector.load(inspector.save(Path(folder) / "model"), device=device)
        pairs = [(inspector.inspect(s), other.inspect(s)) for s in tested]
    started = time.perf_counter()
    if device != "cpu":
        one.inspector(device).fit(good).inspect(tested[0])
    return {
        "fit_seconds": time.perf_counter() - started if device != "cpu" else "",
        "score_difference": max(relative(np.array(a.score), np.array(b.score)) for a, b in pairs),
        "map_difference": max(relative(a.map, b.map) for a, b in pairs),
        "verdicts_agree": all(a.verdict == b.verdict for a, b in pairs),
    }


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12))


# Networks in their true sizes: transformers' model, its config's class, and what differs from the config's defaults.
_VIT_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
NETWORKS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "dinov3-vits16": ("DINOv3ViTModel", "DINOv3ViTConfig", {**_VIT_SMALL, "num_register_tokens": 4}),
    "dinov3-vitb16": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_register_tokens": 4},
    ),
    "dino-vitb8": ("ViTModel", "ViTConfig", {"patch_size": 8}),
    "resnet50": ("ResNetModel", "ResNetConfig", {}),
}
_drawn: set[str] = set()


def weights_of(encoder: str) -> str:
    """ "none" where the encoder needs none, "random" where some of them were drawn, else "pretrained"."""
    if Path(encoder).is_dir() or _drawn & set(joined_names(encoder)):
        return "random"
    return "none" if all(ENCODERS[name].megabytes == 0 for name in joined_names(encoder)) else "pretrained"


def draw_missing(folder: Path) -> None:
    """Put networks without weights here, drawn at random, where the hub's cache would hold them."""
    import transformers

    missing = [name for name in NETWORKS if not availability(name).loads]
    if not availability("point-mae").loads:
        torch.manual_seed(0)
        (folder / "point-mae").mkdir()
        write_folder(folder / "point-mae", published_names(PointTransformer().state_dict()), {})
        os.environ["BLEMISH_POINT_MAE"] = str(folder / "point-mae")
        _drawn.add("point-mae")
    if missing:  # a cache of its own: those that are there stay out of it, and are drawn as well
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "hub")}
    for name in NETWORKS if missing else ():
        model, config, settings = NETWORKS[name]
        torch.manual_seed(0)
        place = folder / "hub" / f"models--{ENCODERS[name].hub.replace('/', '--')}" / "snapshots" / "drawn"
        getattr(transformers, model)(getattr(transformers, config)(**settings)).eval().save_pretrained(place)
        _drawn.add(name)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError inside the block after so long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("out of time")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured_row(known: Row, measure: Callable[[], Row], seconds: float) -> Row:
    """What was measured beside what is known, or why it was not: one failure is a finding, not the end."""
    if seconds < 1:
        return known | {"error": "not begun: out of time"}
    try:
        with at_most(seconds):
            return known | measure()
    except Exception as error:
        return known | {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:300]}


def has_failed(row: Row) -> bool:
    """Whether a row says that something is wrong: not that a way of running does not exist here, or time was short."""
    is_excused = row["part"] == "compile" or "out of time" in row.get("error", "")
    differs = row["part"] == "correctness" and (
        row.get("verdicts_agree") is False
        or max(row.get("score_difference", 0), row.get("map_difference", 0)) > TOLERANCE
    )
    return differs or (bool(row.get("error")) and not is_excused)


def cell(value: Any) -> str:
    """Four digits; nan is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="rows are appended to it")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="no network of true size, few images and steps, one thread")
    parser.add_argument("--only", nargs="+", default=list(DETECTORS), help="these detectors alone")
    parser.add_argument("--parts", nargs="+", default=list(SHARES), choices=list(SHARES), help="these parts alone")
    parser.add_argument("--seconds", type=float, default=420, help="for all parts together; drawing weights adds to it")
    chosen = parser.parse_args()
    if chosen.tiny:
        torch.set_num_threads(1)  # several that wait for each other take minutes on a busy machine
    name = torch.cuda.get_device_name() if chosen.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    failed, is_new = False, not chosen.output.exists()
    with tempfile.TemporaryDirectory() as folder, chosen.output.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, restval="", lineterminator="\n")
        if is_new:
            table.writeheader()
        if not chosen.tiny:
            draw_missing(Path(folder))
        run = Run(chosen.device, chosen.tiny, Path(folder))
        for one in chosen.parts:
            ends = time.perf_counter() + chosen.seconds * SHARES[one]
            for known, measure in getattr(run, one)(chosen.only):
                row = measured_row(known, measure, ends - time.perf_counter())
                row |= {"part": one, "device": name, "torch": torch.__version__}
                failed |= has_failed(row)
                table.writerow({key: cell(value) for key, value in row.items()})
                file.flush()
                print({key: cell(value) for key, value in row.items()}, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
