from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_parts import METHOD, Blemish, Process, write_category
from PIL import Image

from blemish import Inspector
from blemish.cli.results import COLUMNS
from blemish.scoring.false_discovery import benjamini_hochberg


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def table_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_gets_a_row_an_overlay_and_a_place_in_the_report(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    result = blemish("inspect", disc_model, parts / "disc", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows, table = rows_of(tmp_path / "out"), table_of(tmp_path / "out")
    assert len(rows) == len(table) == 6
    assert [row["is_defective"] for row in rows if "scratch" in row["file"]] == [True] * 3
    assert list(table[0])[:5] == ["file", "verdict", "reason", "score", "threshold"]
    for row, line in zip(rows, table, strict=True):
        assert list(row) == list(line) == list(COLUMNS)
        assert float(line["score"]) == row["score"]
        assert json.loads(line["is_defective"]) is row["is_defective"]
        assert json.loads(line["regions"]) == row["regions"]
        assert 0 < row["p_value"] <= 1
        with Image.open(tmp_path / "out" / row["overlay"]) as overlay:
            assert overlay.size == (80, 64)
    anomalous = next(row for row in rows if "scratch" in row["file"])
    assert {"box", "area", "peak"} <= anomalous["regions"][0].keys()
    assert "000.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob(".*"))


def test_a_defect_fails_the_run_only_when_asked(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    bad = parts / "disc" / "test" / "scratch"
    assert blemish("inspect", disc_model, bad, "-o", tmp_path / "a").exit_code == 0
    assert blemish("inspect", disc_model, bad, "-o", tmp_path / "b", "--fail-on-defect").exit_code == 1
    learned = parts / "disc" / "train" / "good" / "000.png"
    assert blemish("inspect", disc_model, learned, "-o", tmp_path / "c", "--fail-on-defect").exit_code == 0


def test_unreadable_images_are_named_and_all_others_done(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(parts / "disc" / "test" / "scratch", folder)
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("this is no picture")
    (folder / "half.png").write_bytes((folder / "000.png").read_bytes()[:2000])
    result = blemish("inspect", disc_model, folder, "-o", tmp_path / "out", "--fail-on-defect")
    assert result.exit_code == 3
    for name in ("empty.png", "text.png", "half.png"):
        assert name in result.stderr
    rows = {Path(row["file"]).name: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 6
    assert {name for name, row in rows.items() if row["error"]} == {"empty.png", "text.png", "half.png"}
    assert all(row["score"] is not None for row in rows.values() if not row["error"])
    assert rows["empty.png"]["score"] is None
    assert "empty.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_folder_of_unreadable_images_alone_still_ends_with_a_report(
    blemish: Blemish, disc_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    result = blemish("inspect", disc_model, tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert (tmp_path / "out" / "report.html").is_file()


def test_maps_have_the_images_size(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    image = parts / "disc" / "test" / "scratch" / "001.png"
    result = blemish("inspect", disc_model, image, "-o", tmp_path / "out", "--maps", "--no-overlays")
    assert result.exit_code == 0, result.output
    (row,) = rows_of(tmp_path / "out")
    scores = np.load(tmp_path / "out" / row["map"], allow_pickle=False)
    assert scores.shape == (64, 80)
    assert scores.dtype == np.float32
    assert row["overlay"] is None
    assert not (tmp_path / "out" / "overlays").exists()
    assert scores.max() == pytest.approx(max(region["peak"] for region in row["regions"]))


def test_images_of_one_name_do_not_overwrite_each_other(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for place in ("one/a.png", "two/a.png", "two/A.png", "two/a-2.png", "three/a.bmp"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(parts / "disc" / "train" / "good" / "000.png") as image:
            image.save(folder / place)
    assert blemish("inspect", disc_model, folder, "-o", tmp_path / "out").exit_code == 0
    overlays = [row["overlay"] for row in rows_of(tmp_path / "out")]
    assert len({overlay.casefold() for overlay in overlays}) == 5
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 5


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        'it\'s "quoted".png',
        "Prüfling Nr. 7 äöü.png",
        "部品 ①.png",
        "a,b;c.png",
        "=1+1.png",
        "n" * 200 + ".png",
    ],
)
def test_names_of_any_kind(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(parts / "disc" / "train" / "good" / "000.png", tmp_path / "in" / name)
    result = blemish("inspect", disc_model, tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (row,) = rows_of(tmp_path / "out")
    assert row["file"] == str(tmp_path / "in" / name)
    assert table_of(tmp_path / "out")[0]["file"] == row["file"]
    assert (tmp_path / "out" / row["overlay"]).is_file()


@pytest.mark.slow
def test_a_name_that_is_no_text(process: Process, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name = b"odd-\xff\xfe.png"
    try:
        shutil.copy(bytes(parts / "disc" / "train" / "good" / "000.png"), bytes(tmp_path / "in") + b"/" + name)
    except OSError:
        pytest.skip("this file system takes no such names")
    (tmp_path / "in" / "good.png").touch()
    ended = process("inspect", disc_model, tmp_path / "in", "-o", tmp_path / "out")
    assert ended.returncode == 3, ended.stderr
    assert len(rows_of(tmp_path / "out")) == len(table_of(tmp_path / "out")) == 2


def test_links_in_a_loop_end(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    shutil.copy(parts / "disc" / "train" / "good" / "000.png", folder)
    (folder / "up").symlink_to(tmp_path / "in", target_is_directory=True)
    assert blemish("inspect", disc_model, tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    assert len(rows_of(tmp_path / "out")) == 1


def test_other_content_of_the_output_folder_stays_and_old_results_go(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    test = parts / "disc" / "test"
    assert blemish("inspect", disc_model, test / "scratch", "-o", out).exit_code == 0
    (out / "overlays" / "notes.txt").write_text("mine, too")
    before = rows_of(out)
    refused = blemish("inspect", disc_model, test / "good" / "000.png", "-o", out)
    assert refused.exit_code == 2
    assert "got those of 3 other pictures; add --append" in refused.stderr
    assert rows_of(out) == before
    assert len(list((out / "overlays").iterdir())) == 4
    assert blemish("inspect", disc_model, test / "good" / "000.png", "-o", out, "--restart").exit_code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert len(rows_of(out)) == len(table_of(out)) == 1
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["000.jpg", "notes.txt"]


def test_a_folder_of_somebody_elses_overlays_is_not_replaced(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "painting.png").write_bytes(b"mine")
    result = blemish("inspect", disc_model, parts / "disc" / "test" / "good", "-o", tmp_path)
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["overlays"]
    assert (tmp_path / "overlays" / "painting.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["report.html", "results.csv"])
def test_the_page_and_table_of_an_evaluation_are_not_replaced(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("of an evaluation")
    result = blemish("inspect", disc_model, parts / "disc" / "test" / "good", "-o", tmp_path, "--restart")
    assert result.exit_code == 2
    assert name in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "of an evaluation"


def test_a_pooled_model_names_what_it_sees(blemish: Blemish, parts: Path, pooled_model: Path, tmp_path: Path) -> None:
    assert blemish("inspect", pooled_model, parts, "-o", tmp_path / "out").exit_code == 0
    for row in rows_of(tmp_path / "out"):
        if "good" in row["file"]:
            assert row["category"] == ("disc" if "/disc/" in row["file"] else "ring")


def test_a_given_category_is_taken_and_an_unknown_one_refused(
    blemish: Blemish, parts: Path, pooled_model: Path, tmp_path: Path
) -> None:
    image = parts / "disc" / "test" / "good" / "000.png"
    assert blemish("inspect", pooled_model, image, "-o", tmp_path / "a", "--category", "ring").exit_code == 0
    assert rows_of(tmp_path / "a")[0]["category"] == "ring"
    result = blemish("inspect", pooled_model, image, "-o", tmp_path / "b", "--category", "cube")
    assert result.exit_code == 2
    assert "disc" in result.stderr
    assert not (tmp_path / "b").exists()


def test_results_go_neither_into_a_model_nor_among_pictures(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(parts / "disc" / "test" / "good", pictures)
    for place in (disc_model, pictures):
        before = sorted(place.iterdir())
        result = blemish("inspect", disc_model, parts / "disc" / "test" / "good", "-o", place)
        assert result.exit_code == 2
        assert "name another folder with -o" in result.stderr
        assert sorted(place.iterdir()) == before


def test_a_file_as_output_is_called_one(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = blemish("inspect", disc_model, parts / "disc" / "test" / "good", "-o", tmp_path / "file")
    assert result.exit_code == 2
    assert "got a file where a folder should be; name a folder" in result.stderr
    assert "permissions" not in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_path_may_have_been_a_picture(blemish: Blemish, disc_model: Path, tmp_path: Path) -> None:
    result = blemish("inspect", disc_model, tmp_path / "one.png", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "expected a picture or a folder of pictures at" in result.stderr


@pytest.mark.parametrize("case", ["empty folder", "missing path", "missing model", "no model", "file as output"])
def test_wrong_usage_is_one_line_and_writes_nothing(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, case: str
) -> None:
    model, path, out = disc_model, parts / "disc" / "test" / "good", tmp_path / "out"
    if case == "empty folder":
        path = tmp_path / "empty"
        path.mkdir()
    elif case == "missing path":
        path = tmp_path / "nothing"
    elif case == "missing model":
        model = tmp_path / "nothing"
    elif case == "no model":
        model = parts
    else:
        (tmp_path / "file").write_text("mine")
        out = tmp_path / "file" / "out"
    result = blemish("inspect", model, path, "-o", out)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: expected ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output
    assert not out.exists()


@pytest.mark.parametrize("file", ["settings.json", "weights.safetensors", "calibration.json"])
@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_harmed_model_is_refused(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, file: str, harm: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(disc_model, model)
    if harm == "missing":
        (model / file).unlink()
    else:
        content = bytearray((model / file).read_bytes())
        content[len(content) // 2] ^= 1
        (model / file).write_bytes(bytes(content))
    result = blemish("inspect", model, parts / "disc" / "test" / "good", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert file in result.stderr


def test_a_model_of_a_newer_format_is_refused(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(disc_model, model)
    settings = json.loads((model / "settings.json").read_text())
    (model / "settings.json").write_text(json.dumps(settings | {"format_version": 99}))
    result = blemish("inspect", model, parts / "disc" / "test" / "good", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "99" in result.stderr
    assert "update" in result.stderr


def test_a_huge_image_is_refused_before_decoding_and_the_limit_can_be_raised(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = parts / "disc" / "test" / "good" / "000.png"
    monkeypatch.setenv("BLEMISH_MAX_PIXELS", "1000")
    result = blemish("inspect", disc_model, image, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "BLEMISH_MAX_PIXELS" in result.stderr
    monkeypatch.setenv("BLEMISH_MAX_PIXELS", "10000")
    assert blemish("inspect", disc_model, image, "-o", tmp_path / "out").exit_code == 0


def test_calibrate_renews_the_limit_and_keeps_what_was_learned(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(disc_model, model)
    new = write_category(tmp_path / "new" / "disc", "disc", train=0, test=8) / "test" / "good"
    result = blemish("calibrate", model, new, "--false-alarm-rate", "0.2")
    assert result.exit_code == 0, result.output
    before, after = (json.loads((folder / "calibration.json").read_text()) for folder in (disc_model, model))
    assert before != after
    assert (model / "weights.safetensors").read_bytes() == (disc_model / "weights.safetensors").read_bytes()
    assert blemish("inspect", model, new, "-o", tmp_path / "out").exit_code == 0


def test_results_of_a_model_from_before_its_limits_changed_may_be_its_own(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(disc_model, tmp_path / "model")
    inspect = ("inspect", model, parts / "disc" / "test" / "good", "-o", tmp_path / "out")
    assert blemish(*inspect).exit_code == 0
    new = write_category(tmp_path / "new" / "disc", "disc", train=0, test=8) / "test" / "good"
    assert blemish("calibrate", model, new).exit_code == 0
    refused = blemish(*inspect)
    assert refused.exit_code == 2
    assert "those of another one, or of this one before its limits changed (model)" in refused.stderr
    assert "add --restart" in refused.stderr
    assert blemish(*inspect, "--restart").exit_code == 0


def test_calibrate_takes_pictures_of_unknown_state(blemish: Blemish, disc_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(disc_model, tmp_path / "model")
    new = write_category(tmp_path / "new", "disc", train=0, test=27) / "test"
    line = tmp_path / "line"
    shutil.copytree(new / "good", line)
    for i in range(3):
        shutil.copy(new / "scratch" / f"{i:03}.png", line / f"bad{i}.png")
    result = blemish("calibrate", model, line, "--unlabelled", "--expected-defects", "0.1")
    assert result.exit_code == 0, result.output
    assert "30 pictures of unknown state added." in result.stdout
    words = re.search(r"30 pictures of unknown state, of which about (\d+) % look defective", result.stdout)
    assert words
    assert 5 <= int(words[1]) <= 25
    assert blemish("inspect", model, line, "-o", tmp_path / "out").exit_code == 0
    verdicts = {Path(row["file"]).stem: row["verdict"] for row in rows_of(tmp_path / "out")}
    assert all(verdicts[f"bad{i}"] == "defective" for i in range(3))
    assert list(verdicts.values()).count("defective") <= 3 + 4
    (line / "broken.png").write_bytes(b"no picture")
    with_broken = blemish("calibrate", model, line, "--unlabelled")
    assert with_broken.exit_code == 3
    assert "not read:" in with_broken.stderr
    assert "broken.png" in with_broken.stderr
    assert "30 pictures of unknown state added." in with_broken.stdout
    few = blemish("calibrate", model, line / "001.png", "--unlabelled")
    assert few.exit_code == 2
    assert "at least 10" in few.stderr
    assert blemish("calibrate", model, line, "--unlabelled", "--replace").exit_code == 2


def test_a_share_of_defects_is_one_of_unsorted_pictures(blemish: Blemish, disc_model: Path, parts: Path) -> None:
    good = parts / "disc" / "test" / "good"
    forgotten = blemish("calibrate", disc_model, good, "--expected-defects", "0.1")
    assert forgotten.exit_code == 2
    assert "--expected-defects together with --unlabelled" in forgotten.stderr
    impossible = blemish("calibrate", disc_model, good, "--unlabelled", "--expected-defects", "7")
    assert impossible.exit_code == 2
    assert "share of defects from 0 to" in impossible.stderr


def test_a_misspelt_unit_is_refused_whatever_is_inspected(
    blemish: Blemish, disc_model: Path, parts: Path, tmp_path: Path
) -> None:
    result = blemish("inspect", disc_model, parts / "disc" / "test" / "good", "-o", tmp_path / "out", "--units", "yd")
    assert result.exit_code == 2
    assert "units of points: m, cm" in result.stderr
    assert not (tmp_path / "out").exists()


def test_alarms_of_a_batch_are_marked(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    out = tmp_path / "out"
    result = blemish("inspect", disc_model, parts / "disc", broken, "-o", out, "--false-discovery-rate", "0.2")
    rows = rows_of(out)
    assert [row["alarm"] for row in rows if row["error"]] == [None]
    marked = [row["alarm"] for row in rows if not row["error"]]
    expected = benjamini_hochberg([row["p_value"] for row in rows if not row["error"]], 0.2)
    assert marked == expected.tolist()
    assert 0 < sum(marked) < len(marked)
    assert f"{sum(marked)} alarms of which at most 20 % should be good parts" in result.stdout.replace("\n", " ")
    assert [row["alarm"] for row in table_of(out)].count("true") == sum(marked)
    assert blemish("inspect", disc_model, parts / "disc", "-o", out, "--false-discovery-rate", "2").exit_code == 2


def test_a_resumed_run_that_asks_for_no_alarms_leaves_none(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    """Those marked before belong to a smaller batch; the rows that are gone on from keep everything else."""
    images = sorted((parts / "disc").rglob("*.png"))
    out = tmp_path / "out"
    assert blemish("inspect", disc_model, *images[:-1], "-o", out, "--false-discovery-rate", "0.2").exit_code == 0
    marked = rows_of(out)
    assert {row["alarm"] for row in marked} == {False, True}
    resumed = blemish("inspect", disc_model, *images, "-o", out)
    assert f"{len(marked)} of them inspected by an earlier run" in resumed.stdout
    rows = rows_of(out)
    assert [row | {"alarm": None} for row in marked] == rows[:-1]
    assert {row["alarm"] for row in rows} == {None}
    assert {row["alarm"] for row in table_of(out)} == {""}


def test_calibrate_does_not_overwrite_what_another_run_saved_meanwhile(
    blemish: Blemish, disc_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(disc_model, model)
    one, other = (
        write_category(tmp_path / name / "disc", "disc", train=0, test=n) / "test" / "good"
        for name, n in (("one", 4), ("other", 8))
    )
    calibrate = Inspector.calibrate

    def calibrate_while_another_does(self: Inspector, *given: Any, **options: Any) -> Any:
        monkeypatch.undo()
        assert blemish("calibrate", model, other).exit_code == 0
        return calibrate(self, *given, **options)

    monkeypatch.setattr(Inspector, "calibrate", calibrate_while_another_does)
    result = blemish("calibrate", model, one)
    assert result.exit_code == 2
    assert "another run has saved meanwhile" in result.stderr
    (category,) = json.loads((model / "calibration.json").read_text())["categories"]
    assert len(category["added"]) == 8


def test_results_are_never_said_to_be_of_a_model_that_came_later(
    blemish: Blemish, disc_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of two models would be mixed by the next run."""
    model = tmp_path / "model"
    shutil.copytree(disc_model, model)
    new = write_category(tmp_path / "new" / "disc", "disc", train=0, test=2) / "test" / "good"
    load = Inspector.load

    def load_before_another_replaces_it(*given: Any, **options: Any) -> Inspector:
        found = load(*given, **options)
        monkeypatch.undo()
        assert blemish("calibrate", model, new).exit_code == 0
        return found

    monkeypatch.setattr(Inspector, "load", load_before_another_replaces_it)
    assert blemish("inspect", model, new, "-o", tmp_path / "out").exit_code == 0
    now = json.loads((model / "settings.json").read_text())["settings_sha256"]
    assert json.loads((tmp_path / "out" / "inspection.json").read_text())["model_sha256"] != now


@pytest.mark.parametrize("command", ["calibrate", "diagnose"])
def test_the_disk_is_tried_before_a_picture_is_scored(
    blemish: Blemish, parts: Path, disc_model: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("blemish.utils.atomic.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(Inspector, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    result = blemish(command, disc_model, parts / "disc" / "test" / "good")
    assert result.exit_code == 2
    assert "Read-only file system" in result.stderr


def test_calibrate_refuses_the_images_it_learned_from(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(disc_model, model)
    result = blemish("calibrate", model, parts / "disc" / "train" / "good")
    assert result.exit_code == 2
    assert "did not learn from" in result.stderr


def test_fit_then_inspect_in_one_go_from_a_plain_folder(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "disc" / "train" / "good", tmp_path / "mine" / "a" / "b")
    result = blemish("fit", tmp_path / "mine", "-o", tmp_path / "m", *METHOD, "--category", "disc")
    assert result.exit_code == 0, result.output
    assert blemish("inspect", tmp_path / "m", parts / "disc" / "test", "-o", tmp_path / "o").exit_code == 0
    assert {row["category"] for row in rows_of(tmp_path / "o")} == {"disc"}
