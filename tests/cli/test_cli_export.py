"""`blemish export`: one bundle of a small model, and what is refused with a message."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_parts import METHOD, Blemish, write_category
from image_text_parts import write_model
from scan_parts import heights, points_of

from blemish import Inspector, Sample
from blemish.errors import SettingsError
from blemish.export.bundle import export_bundle
from blemish.runtime.cli import main

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def model(blemish: Blemish, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    made = blemish("fit", write_category(folder / "disc", "disc") / "train" / "good", "-o", folder / "model", *METHOD)
    assert made.exit_code == 0, made.output
    return folder / "model"


def test_a_bundle_inspects_as_its_model_does(
    model: Path, blemish: Blemish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = blemish("export", model, "-o", tmp_path / "bundle")
    assert made.exit_code == 0, made.output
    assert "scores differ" in made.output
    assert "Bundle" in made.output
    pictures = model.parent / "disc" / "test"
    assert blemish("inspect", model, pictures, "-o", tmp_path / "model").exit_code == 0
    assert main([str(tmp_path / "bundle"), str(pictures), "-o", str(tmp_path / "runtime")]) == 0
    expected, found = (
        {row["file"]: row for row in map(json.loads, (tmp_path / name / "results.jsonl").read_text().splitlines())}
        for name in ("model", "runtime")
    )
    assert expected.keys() == found.keys()
    assert {row["verdict"] for row in found.values()} >= {"good", "defective"}
    for name, row in found.items():
        assert row["verdict"] == expected[name]["verdict"]
        assert row["score"] == pytest.approx(expected[name]["score"], rel=1e-3)
    more = tmp_path / "more.png"
    more.write_bytes((pictures / "good" / "000.png").read_bytes())
    again = [str(tmp_path / "bundle"), str(more), "-o", str(tmp_path / "runtime")]
    rows = tmp_path / "runtime" / "results.jsonl"
    assert main(again) == 2
    assert f"got those of {len(found)} other pictures" in capsys.readouterr().err
    assert main([*again, "--append", "--restart"]) == 2
    assert len(rows.read_text().splitlines()) == len(found)
    assert main([*again, "--append"]) == 0
    assert len(rows.read_text().splitlines()) == len(found) + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--picture", "abc"], "a size in pixels such as 640x480"),
        (["--picture", "999999x999999"], "pictures of at most"),
        (["--opset", "7"], "an opset among"),
        (["--int8", "--format", "openvino"], "--int8 with --format onnx"),
        (["--category", "nut"], "nut"),
    ],
)
def test_options_that_cannot_be_are_refused(
    model: Path, blemish: Blemish, tmp_path: Path, options: list[str], words: str
) -> None:
    refused = blemish("export", model, "-o", tmp_path / "bundle", *options)
    assert refused.exit_code == 2
    assert words in refused.output
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_model_and_one_with_other_files_are_refused(
    model: Path, blemish: Blemish, tmp_path: Path
) -> None:
    refused = blemish("export", model.parent / "disc", "-o", tmp_path / "bundle")
    assert refused.exit_code == 2
    assert "error: expected" in refused.output
    refused = blemish("export", model, "-o", model)
    assert refused.exit_code == 2
    assert "an older bundle" in refused.output
    assert (model / "settings.json").exists()


def test_a_detector_of_sentences_is_refused_at_once_not_sent_to_be_calibrated(blemish: Blemish, tmp_path: Path) -> None:
    encoder = write_model(tmp_path / "clip")
    options = ["--encoder", encoder, "--image-size", 40, "--device", "cpu"]
    assert blemish("fit", "--zero-shot", "metal disc", "-o", tmp_path / "model", *options).exit_code == 0
    refused = blemish("export", tmp_path / "model", "-o", tmp_path / "bundle")
    assert refused.exit_code == 2
    assert "expected a detector that can be exported; got 'winclip'" in refused.output
    assert "calibrate" not in refused.output


def scans() -> list[Sample]:
    images = np.random.default_rng(0).integers(60, 120, (3, 56, 56, 3), dtype=np.uint8)
    return [Sample(image, points_of(heights(56, 0.02), seed=seed)) for seed, image in enumerate(images)]


@pytest.mark.parametrize(
    ("detector", "settings", "why"),
    [
        ("btf", {}, "no graph can hold the scores of 'btf'"),
        (
            "cfm",
            {"steps": 3, "width": 8},
            "'cfm' has a graph, but blemish-runtime can neither frame scans nor describe",
        ),
    ],
)
def test_a_model_of_scans_is_refused_and_says_what_is_missing(
    blemish: Blemish, tmp_path: Path, detector: str, settings: dict[str, Any], why: str
) -> None:
    inspector = Inspector(detector=detector, encoder="pixels+points-shape", image_size=56, device="cpu", **settings)
    inspector.fit(scans()).save(tmp_path / "model")
    refused = blemish("export", tmp_path / "model", "-o", tmp_path / "bundle")
    assert refused.exit_code == 2
    assert "measured points" in refused.output
    assert why in " ".join(refused.output.split())
    assert not (tmp_path / "bundle").exists()


def test_points_that_torch_describes_are_refused_at_once(tmp_path: Path) -> None:
    """An encoder of points that is a network of its own needs what the runtime does without."""
    inspector = Inspector(detector="cfm", encoder="pixels+points-shape", image_size=56, device="cpu", steps=3, width=8)
    model = inspector.fit(scans()).model_

    class PointNetwork:
        name = "point-mae"

    encoder = copy(model.encoder)
    vars(encoder)["points"] = PointNetwork()
    with pytest.raises(SettingsError, match="'point-mae' takes torch"):
        export_bundle(replace(model, encoder=encoder), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
