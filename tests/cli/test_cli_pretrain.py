"""`blemish pretrain`: a folder that is an encoder, or nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from cli_parts import Blemish

from blemish.cli.pretrain import read_surface
from blemish.errors import ImageError

TINY = ("batch=2", "points=64", "groups=8", "group_size=8", "width=64", "depth=1", "decoder_depth=1")
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two good scans as .npy, read as they are."""
    monkeypatch.setattr("blemish.cli.pretrain.read_surface", np.load)
    y, x = np.mgrid[:16, :16] * 0.001
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(2):
        np.save(folder / f"{i}.npy", np.stack([x, y, 0.001 * np.sin(300 * x + i)], axis=-1).astype(np.float32))
    return folder


def test_it_writes_an_encoder_and_replaces_it(blemish: Blemish, scans: Path, tmp_path: Path) -> None:
    from blemish.encoders import build

    out = tmp_path / "own"
    for seed in (0, 1):
        result = blemish(
            "pretrain", "point-mae", scans, "-o", out, "--steps", 2, "--seed", seed, "--device", "cpu", *SETTINGS
        )
        assert result.exit_code == 0, result.output
        assert "2 of 2 scans in 2 steps" in result.stdout
        assert sorted(p.name for p in out.iterdir()) == ["loss.csv", "point_mae.safetensors", "settings.json"]
        with (out / "loss.csv").open(newline="", encoding="utf-8") as file:
            losses = [(row["step"], float(row["loss"]) > 0) for row in csv.DictReader(file)]
        assert losses == [("1", True), ("2", True)]
    points = np.stack([np.load(scans / "0.npy")])
    assert build(str(out)).encode_points(points).valid["points"].all()  # type: ignore[attr-defined]


def test_scans_of_too_few_points_are_counted(blemish: Blemish, scans: Path, tmp_path: Path) -> None:
    np.save(scans / "small.npy", np.zeros((7, 9, 3), np.float32))
    result = blemish("pretrain", "point-mae", scans, "-o", tmp_path / "own", "--steps", 1, "--device", "cpu", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert "2 of 3 scans in 1 step; loss" in result.stdout
    assert "Left out: 1 scan with fewer measured points on the part than points=64." in result.stdout


def test_an_interrupted_run_leaves_nothing(
    blemish: Blemish, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blemish.numeric.training.Training.run", stop)
    result = blemish("pretrain", "point-mae", scans, "-o", tmp_path / "own", "--device", "cpu", *SETTINGS)
    assert result.exit_code == 130
    assert [p.name for p in tmp_path.iterdir()] == ["scans"]


def test_wrong_wishes_are_told(blemish: Blemish, scans: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "settings.json").write_text("{}")
    for arguments, words in (
        (("-o", model), "other files"),
        (("-o", scans / "0.npy"), "a file"),
        (("-o", tmp_path / "own", "--set", "depht=3"), "depht"),
        (("-o", tmp_path / "own", "--set", "groups=0"), "groups"),
        (("-o", tmp_path / "own", "--set", "points=5000"), "5000 measured points"),
    ):
        result = blemish("pretrain", "point-mae", scans, *arguments)
        assert result.exit_code == 2
        assert words in result.output
    assert (model / "settings.json").read_text() == "{}"
    assert not (tmp_path / "own").exists()


def test_scans_in_millimetres_are_read_in_the_unit_stated(tmp_path: Path) -> None:
    y, x = np.mgrid[:60, :60] * 10.0  # 60 cm across, in millimetres
    np.save(tmp_path / "a.npy", np.stack([x, y, 900 - 40 * np.sin(x / 90) * np.sin(y / 70)], axis=-1))
    with pytest.raises(ImageError, match="--units mm"):
        read_surface(tmp_path / "a.npy")
    assert np.nanmax(read_surface(tmp_path / "a.npy", "mm")[..., 2]) == pytest.approx(0.94, abs=1e-3)
