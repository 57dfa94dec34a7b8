"""PatchCore here and in anomalib 2.7 on one machine: install, import, learning, inspecting, memory, export.

    python benchmarks/peers.py -o benchmarks/results/peers.csv [--environments FOLDER] [--repeats 3]

Each program gets an environment of its own, made by this script where it does not exist (anomalib brings several
gigabytes). Both run PatchCore on the second and third stage of a ResNet-18 of random weights, 3 × 3 neighbourhoods and
a tenth of the patches kept (blemish without turned copies): accuracy is not compared, work is. Both learn from 20
generated pictures of 256 px and inspect 20 others from files, one at a time and by 20. Programs take turns, each run in
a process of its own; the least of `--repeats` counts. `install_mb` is everything that the environment holds beside pip,
`without_torch_mb` the same without torch and what a GPU build of it brings (nvidia, triton): the builds differ.
`export_s` of blemish includes a process of its own and the comparison of the bundle with the model; `export_mb` is the
ONNX file with its weights.

While anomalib learns, large blocks go back to the system at once (`keep_blocks_below`): by glibc's own rule its coreset
filled 24 GB of memory and did not end. That slows its learning: of a fiftieth of the patches, where both ways end, it
took 11.5 s for 5.9. Afterwards blocks are kept, as by that rule.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("blemish", "anomalib")
HEAD = ("figure", *PROGRAMS, "ratio")
FIGURES = (
    "install_mb",
    "without_torch_mb",
    "import_s",
    "fit_s",
    "inspect_one_ms",
    "inspect_batch_ms",
    "peak_mb",
    "export_s",
    "export_mb",
)
COUNT, SIZE, STAGES = 20, 256, ("layer2", "layer3")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def make_environment(folder: Path, program: str) -> Path:
    """The Python of a program's environment, installed where it is missing."""
    python = folder / program / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / program], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        if program == "anomalib":
            subprocess.run([*pip, "anomalib==2.7.0", "onnx", "onnxscript"], check=True)
        else:
            pinned = [*pip, "--constraint", ROOT / "constraints.txt"]
            subprocess.run([*pinned, "torch"], check=True)
            subprocess.run([*pinned, f"{ROOT}[export]"], check=True)
    return python


def installed(folder: Path, program: str) -> dict[str, float]:
    """Megabytes of an environment's packages, with and without torch."""
    (packages,) = (folder / program).glob("lib/python*/site-packages")
    sizes = {path.name.lower(): megabytes(path) for path in packages.iterdir()}
    mine = {name: size for name, size in sizes.items() if not name.startswith(("pip", "setuptools", "_distutils"))}
    gpu = ("torch-", "nvidia", "triton", "cuda", "torchgen", "functorch")
    light = {name: size for name, size in mine.items() if name != "torch" and not name.startswith(gpu)}
    return {"install_mb": sum(mine.values()), "without_torch_mb": sum(light.values())}


def megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 2**20


def write_pictures(folder: Path) -> None:
    """Noisy discs: `good` to learn from, `test` to inspect."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    for name, start in (("good", 0), ("test", COUNT)):
        (folder / name).mkdir(parents=True)
        for number in range(start, start + COUNT):
            image = np.full((SIZE, SIZE, 3), 90.0)
            image[np.hypot(x, y) < SIZE / 3] = (180, 170, 60)
            image += np.random.default_rng(number).normal(0, 6, image.shape)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03}.png")


def run_blemish(data: Path) -> dict[str, float]:
    """Times of this program, in the process that measures it."""
    started = time.perf_counter()
    import blemish
    from blemish import Inspector

    imported = time.perf_counter() - started
    assert blemish
    encoder = random_resnet(data / "encoder")
    started = time.perf_counter()
    inspector = Inspector(
        encoder,
        "patchcore",
        image_size=SIZE,
        layers=(1, 2),
        rotations=1,
        coreset_ratio=0.1,
        min_patches=1,
        reweighting_neighbours=9,
    )
    inspector.fit(sorted((data / "good").iterdir()))
    fitted = time.perf_counter() - started
    files = sorted((data / "test").iterdir())
    inspector.inspect(files[0])
    started = time.perf_counter()
    for file in files:
        inspector.inspect(file)
    one = time.perf_counter() - started
    started = time.perf_counter()
    assert len(list(inspector.inspect_many(files, batch_size=COUNT))) == COUNT
    many = time.perf_counter() - started
    peak = peak_megabytes()
    inspector.save(data / "model")
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "blemish", "export", data / "model", "-o", data / "bundle", "--force"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    exported = time.perf_counter() - started
    files = [*(data / "bundle").glob("*.onnx"), data / "bundle" / "weights.bin"]
    return figures(imported, fitted, one, many, peak, exported, sum(map(megabytes, files)))


def random_resnet(folder: Path) -> Path:
    """A folder with a ResNet-18 that has learned nothing."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    return folder


def run_anomalib(data: Path) -> dict[str, float]:
    """The same of anomalib."""
    started = time.perf_counter()
    from anomalib.data import Folder, PredictDataset
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    imported = time.perf_counter() - started
    started = time.perf_counter()
    model = Patchcore(
        backbone="resnet18",
        layers=STAGES,
        pre_trained=False,
        coreset_sampling_ratio=0.1,
        num_neighbors=9,
        pre_processor=Patchcore.configure_pre_processor(image_size=(SIZE, SIZE)),
    )
    pictures = Folder(
        name="discs",
        root=data,
        normal_dir="good",
        normal_test_dir="test",  # it does not fit without pictures to set its threshold by
        val_split_mode="same_as_test",
        train_batch_size=COUNT,
        num_workers=0,
    )
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=data / "anomalib")
    keep_blocks_below(1 << 20)
    engine.fit(model=model, datamodule=pictures)
    keep_blocks_below(32 << 20)
    fitted = time.perf_counter() - started
    from torch.utils.data import DataLoader

    def inspect(batch: int) -> float:
        dataset = PredictDataset(path=data / "test", image_size=(SIZE, SIZE))
        loader = DataLoader(dataset, batch_size=batch, collate_fn=dataset.collate_fn)
        engine.predict(model=model, dataloaders=loader)
        started = time.perf_counter()
        engine.predict(model=model, dataloaders=loader)
        return time.perf_counter() - started

    one, many, peak = inspect(1), inspect(COUNT), peak_megabytes()
    started = time.perf_counter()
    path = engine.export(model=model, export_type="onnx", export_root=data / "exported", input_size=(SIZE, SIZE))
    exported = time.perf_counter() - started
    return figures(imported, fitted, one, many, peak, exported, sum(map(megabytes, Path(path).parent.glob("*.onnx*"))))


def keep_blocks_below(size: int) -> None:
    """Have glibc keep freed blocks of less than `size` bytes for the next ones, and give larger ones back."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, size)
    libc.mallopt(M_TRIM_THRESHOLD, 2 * size)


def figures(
    imported: float, fitted: float, one: float, many: float, peak: float, exported: float, export_mb: float
) -> dict[str, float]:
    times = {"inspect_one_ms": 1000 * one / COUNT, "inspect_batch_ms": 1000 * many / COUNT}
    rest = {"peak_mb": peak, "export_s": exported, "export_mb": export_mb}
    return {"import_s": imported, "fit_s": fitted, **times, **rest}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(python: Path, program: str) -> dict[str, float]:
    """One run of a program in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        subprocess.run([python, __file__, "--pictures", data / "data"], check=True)
        command = [python, __file__, "--inside", program, "--data", data / "data"]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        with (data / "figures.json").open("w+", encoding="utf-8") as out:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=out, env=environment)
            out.seek(0)
            found: dict[str, float] = json.loads(out.read().strip().splitlines()[-1])
        return found


def compare(out: Path, environments: Path, repeats: int) -> None:
    """Measure both programs in turn and write the table."""
    pythons = {program: make_environment(environments, program) for program in PROGRAMS}
    runs: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    for _ in range(repeats):
        for program, python in pythons.items():
            runs[program].append(measured(python, program))
    best: dict[str, dict[str, Any]] = {
        program: installed(environments, program) | {name: min(run[name] for run in found) for name in found[0]}
        for program, found in runs.items()
    }
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEAD)
        for name in FIGURES:
            own, other = (best[program][name] for program in PROGRAMS)
            table.writerow((name, readable(own), readable(other), f"{other / own:.2f}"))
            print(f"{name:18} {readable(own):>8} {readable(other):>8}   {other / own:.1f} x")


def readable(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("peers.csv"))
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "peers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--inside", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pictures:
        write_pictures(options.pictures)
    elif options.inside:
        run = {"blemish": run_blemish, "anomalib": run_anomalib}[options.inside]
        print(json.dumps(run(options.data)))
    else:
        compare(options.output, options.environments, options.repeats)


if __name__ == "__main__":
    main()
