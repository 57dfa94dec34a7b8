from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from cli_parts import METHOD, Blemish, part
from PIL import Image

SIGNS = ["identity mapping", "over-fitting", "domain gap", "growth", "prompts do not separate"]


def diagnosis(out: Path) -> dict[str, dict[str, object]]:
    written = json.loads((out / "diagnosis.json").read_text())
    return {sign["name"]: sign for sign in written["signs"]}


def test_a_healthy_model(blemish: Blemish, disc_model: Path, parts: Path, tmp_path: Path) -> None:
    good = [parts / "disc" / "train" / "good", parts / "disc" / "test" / "good"]
    result = blemish("diagnose", disc_model, *good, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    signs = diagnosis(tmp_path / "out")
    assert list(signs) == SIGNS
    assert signs.pop("prompts do not separate")["verdict"] == "not measured"  # the detector reads none
    assert {sign["verdict"] for sign in signs.values()} == {"ok"}, signs
    assert "6 good pictures that the model learned from and 3 that it did not" in result.stdout
    for name in SIGNS:
        assert name in result.stdout
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")


def test_images_of_another_kind(blemish: Blemish, disc_model: Path, parts: Path, tmp_path: Path) -> None:
    result = blemish("diagnose", disc_model, parts / "ring" / "train" / "good", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert diagnosis(tmp_path / "out")["domain gap"]["verdict"] == "warn"
    assert "domain gap: Check that camera" in result.stdout


def test_without_images_what_is_missing_is_said(blemish: Blemish, disc_model: Path, tmp_path: Path) -> None:
    result = blemish("diagnose", disc_model, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "give good pictures" in result.stdout
    assert diagnosis(tmp_path / "out")["identity mapping"]["verdict"] == "not measured"


def test_unreadable_images_end_with_their_own_code(
    blemish: Blemish, disc_model: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts / "disc" / "test" / "good", tmp_path / "good")
    (tmp_path / "good" / "broken.png").write_bytes(b"none")
    result = blemish("diagnose", disc_model, tmp_path / "good", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "broken.png" in result.stderr
    assert diagnosis(tmp_path / "out")["identity mapping"]["verdict"] == "ok"


def test_no_report_among_pictures(blemish: Blemish, disc_model: Path, parts: Path) -> None:
    good = parts / "disc" / "test" / "good"
    before = sorted(good.iterdir())
    result = blemish("diagnose", disc_model, good, "-o", good)
    assert result.exit_code == 2
    assert "a folder of pictures" in result.stderr
    assert sorted(good.iterdir()) == before


def test_earlier_results_are_refused_unless_replaced(blemish: Blemish, disc_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("of an inspection")
    refused = blemish("diagnose", disc_model, "-o", out)
    assert refused.exit_code == 2
    assert "one that holds report.html; name another folder with -o, or add --restart" in refused.stderr
    assert [path.name for path in out.iterdir()] == ["report.html"]
    assert (out / "report.html").read_text() == "of an inspection"
    assert blemish("diagnose", disc_model, "-o", out, "--restart").exit_code == 0
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert "holds diagnosis.json" in blemish("diagnose", disc_model, "-o", out).stderr


def test_wrong_usage(blemish: Blemish, disc_model: Path, parts: Path, tmp_path: Path) -> None:
    assert blemish("diagnose", tmp_path, "-o", tmp_path / "o").exit_code == 2
    assert blemish("diagnose", disc_model, tmp_path / "none", "-o", tmp_path / "o").exit_code == 2
    wrong = blemish(
        "diagnose", disc_model, parts / "disc" / "train" / "good", "--category", "bolt", "-o", tmp_path / "o"
    )
    assert wrong.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_fit_says_which_good_pictures_stand_out(blemish: Blemish, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    for i in range(16):
        Image.fromarray(part("disc", i, defective=i == 4)[0]).save(tmp_path / "good" / f"{i}.png")
    result = blemish("fit", tmp_path / "good", "-o", tmp_path / "model", *METHOD)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "Look at 1 good picture that stands out from the others:" in said
    found = re.search(r"good/4\.png ([0-9.]+)× the median picture, the others at most ([0-9.]+)×", said)
    assert found
    assert float(found[1]) > float(found[2]) >= 1
    limits = re.search(r"The limit is ([0-9.]+); it would be ([0-9.]+) without\.", said)
    assert limits
    assert float(limits[1]) > float(limits[2])
    assert "Remove what shows a defect, and learn again." in said
    assert blemish("inspect", tmp_path / "model", tmp_path / "good", "-o", tmp_path / "o").exit_code == 0
    assert "learned, but stood out" in (tmp_path / "o" / "report.html").read_text()
    clean = [tmp_path / "good" / f"{i}.png" for i in range(16) if i != 4]
    assert "stand" not in blemish("fit", *clean, "-o", tmp_path / "clean", *METHOD).stdout


def test_fit_sets_aside_what_stands_out_and_says_so(blemish: Blemish, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    for i in range(10):
        Image.fromarray(part("disc", i, defective=i == 4)[0]).save(tmp_path / "good" / f"{i}.png")
    result = blemish("fit", tmp_path / "good", "-o", tmp_path / "model", *METHOD, "--clean")
    assert result.exit_code == 0, result.output
    assert "Set aside: 1 picture that stood out from the others; 9 learned." in result.stdout
    assert "good/4.png  " in result.stdout
    settings = json.loads((tmp_path / "model" / "settings.json").read_text())
    assert [one["file"] for one in settings["outliers"]] == ["4.png"]
    assert blemish("inspect", tmp_path / "model", tmp_path / "good", "-o", tmp_path / "o").exit_code == 0
    page = (tmp_path / "o" / "report.html").read_text()
    assert "set aside while learning" in page
    assert (tmp_path / "o" / "overlays" / "4.png").exists() or "4.png" in page
    again = blemish(
        "fit", *[tmp_path / "good" / f"{i}.png" for i in range(3)], "-o", tmp_path / "few", *METHOD, "--clean"
    )
    assert again.exit_code == 2
    assert "at least 6 pictures" in again.stderr
    assert not (tmp_path / "few").exists()
