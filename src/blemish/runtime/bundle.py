"""A bundle on disk: what is in it, and reading it back, every file checked against its hash.

bundle.json   all facts: preprocessing, calibration, graphs, hashes of all other files
graph-WxH.…   the graph for framed images W pixels wide and H high; its weights lie beside it
arrays.npz    what framing learned, and the area that is not judged
parity.json   how far the bundle's results are from the model's, measured at export
samples/      pictures and the results that they must give
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from blemish.data.full_scale import FullScale
from blemish.errors import ModelError
from blemish.preprocessing.framing import Framing, build_framing
from blemish.scoring.tabulated_calibration import TabulatedCalibration
from blemish.utils.hashing import file_sha256, json_sha256
from blemish.utils.paths import expanded, shown

FORMAT, VERSION = "blemish-bundle", 1
FACTS, ARRAYS, PARITY, SAMPLES, README = "bundle.json", "arrays.npz", "parity.json", "samples", "README.md"
WEIGHTS = "weights.bin"  # of ONNX graphs, which share it
OWN_HASH = "facts_sha256"
EngineName = Literal["onnx", "openvino"]
IGNORED = "ignored"  # of the arrays: the area that is not judged


@dataclass(frozen=True, eq=False)
class Bundle:
    """An exported model of one category: `facts` as `bundle.json` holds them, `arrays` by name, from `folder`."""

    folder: Path
    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The bundle in `folder`. Raises ModelError for anything else, and for one that is not as it was written."""
        folder = expanded(folder)
        facts = read_facts(folder)
        try:
            return cls._read(folder, facts)
        except ModelError:
            if read_facts(folder)[OWN_HASH] == facts[OWN_HASH]:
                raise
        return cls.read(folder)  # it was exported anew meanwhile

    @classmethod
    def _read(cls, folder: Path, facts: Mapping[str, Any]) -> Self:
        """The bundle with these `facts`."""
        for name, known in facts["files"].items():
            check_file(folder / name, known)
        try:
            with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
                return cls(folder, facts, {name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, KeyError) as error:
            raise broken(folder / ARRAYS, str(error)) from error

    @property
    def engine(self) -> EngineName:
        """Which engine runs its graphs."""
        found: EngineName = self.facts["engine"]
        return found

    @property
    def graphs(self) -> Mapping[tuple[int, int], Path]:
        """The graph for framed images of each size (height, width)."""
        return {(one["height"], one["width"]): self.folder / one["file"] for one in self.facts["graphs"]}

    def check_graph(self, path: Path) -> None:
        """Raise ModelError unless the graph at `path` and its weights are those that were there when it was read."""
        try:
            for name in (path.name, path.with_suffix(".bin").name, WEIGHTS):
                if name in self.facts["files"]:
                    check_file(self.folder / name, self.facts["files"][name])
        except ModelError as error:
            raise ModelError(error.expected, error.got, "load the bundle again, if it was exported anew") from error

    @cached_property
    def framing(self) -> Framing:
        """What decides which part of an image a graph sees."""
        how = self.facts["framing"]
        state = {name.removeprefix("framing."): a for name, a in self.arrays.items() if name.startswith("framing.")}
        return build_framing(how["name"], **how["settings"]).load_state(state)

    @cached_property
    def calibration(self) -> TabulatedCalibration:
        """Thresholds and p-values of the bundle's own scores."""
        return TabulatedCalibration.from_dict(self.facts["calibration"])

    @property
    def full_scale(self) -> FullScale:
        """Which level of more than 8 bits is white."""
        return FullScale.from_dict(self.facts["full_scale"])

    @property
    def category(self) -> str | None:
        """The category that it was exported for; None for a model of a single unnamed one."""
        name: str | None = self.facts["category"]
        return name

    @property
    def ignored(self) -> np.ndarray | None:
        """The area `(h, w)` bool of an image, at any resolution, that is not judged."""
        return self.arrays.get(IGNORED)

    @property
    def sha256(self) -> str:
        """The hash of the facts that were read, which hold those of all other files."""
        found: str = self.facts[OWN_HASH]
        return found


def read_facts(folder: Path) -> dict[str, Any]:
    """What `bundle.json` says. Raises ModelError for a folder that is no bundle, or one of a later version."""
    try:
        facts = json.loads((folder / FACTS).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        got, do = f"a folder without {FACTS}", "check the path"
        if not folder.is_dir():
            got = "a file" if folder.exists() else "nothing there"
        elif (folder / "settings.json").exists():
            got, do = f"a model, without {FACTS}", "export the model with blemish export"
        raise ModelError(f"a bundle in '{shown(folder)}'", got, do) from error
    except OSError as error:
        raise unreadable(folder / FACTS, error) from error
    except ValueError as error:
        raise broken(folder / FACTS, str(error)) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ModelError(f"a bundle in '{shown(folder)}'", "another file of that name", "check the path")
    if facts.get("version") != VERSION:
        raise ModelError(
            f"a bundle of version {VERSION}",
            f"version {facts.get('version')}, written by blemish {facts.get('blemish', '?')}",
            "update blemish-runtime, or export again with the blemish that fits it",
        )
    if facts.get(OWN_HASH) != facts_sha256(facts):
        raise broken(folder / FACTS, "other content than was exported")
    return facts


def facts_sha256(facts: Mapping[str, Any]) -> str:
    """The hash of what `bundle.json` says, without the line that holds this hash."""
    return json_sha256({name: value for name, value in facts.items() if name != OWN_HASH})


def check_file(path: Path, known: Mapping[str, Any]) -> None:
    """Raise ModelError unless the file is there, whole and unchanged."""
    try:
        size = path.stat().st_size
        if size != known["bytes"]:
            raise broken(path, f"{size} bytes instead of {known['bytes']}")
        if file_sha256(path) != known["sha256"]:
            raise broken(path, "other content than was exported")
    except FileNotFoundError as error:
        raise ModelError(f"the file '{shown(path)}' of the bundle", "none", "copy the whole folder") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ModelError:
    """The error of a file that is there, and that the system does not give."""
    return ModelError(
        f"a bundle that can be read, with '{shown(path)}'",
        error.strerror or str(error),
        "mend the permissions of its files, or copy the bundle again",
    )


def broken(path: Path, why: str) -> ModelError:
    """The error of a damaged file."""
    return ModelError(f"a whole bundle with '{shown(path)}'", why, "copy the bundle again, or export the model again")
