"""An inspection that goes on where it stopped: what stays, what is done again, what is refused."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_parts import METHOD, Blemish, command, part, write_category
from PIL import Image
from test_cli_inspect import rows_of, table_of

from blemish.cli.inspection import Inspection
from blemish.report import InspectionReport
from blemish.types import VERDICTS, Prediction, Region, Verdict


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "inspection.json").read_text(encoding="utf-8"))
    return found


def files_in(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """Six images: four good, two with a scratch."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(part("disc", i, defective=i >= 4)[0]).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image file is decoded."""
    from blemish.data import samples

    counts: Counter[str] = Counter()
    load = samples.load_image

    def counting(source: Any, *arguments: Any, **options: Any) -> np.ndarray:
        counts[Path(source).name] += 1
        return load(source, *arguments, **options)

    monkeypatch.setattr(samples, "load_image", counting)
    return counts


def test_an_image_is_decoded_once_for_score_overlay_and_report(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, decoded: Counter[str]
) -> None:
    assert blemish("inspect", disc_model, incoming, "-o", tmp_path / "out").exit_code == 0
    assert decoded == {f"{i}.png": 1 for i in range(6)}
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 6
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("data:image/jpeg") >= 6


def test_a_resumed_report_shows_twelve_bits_as_the_model_saw_them(
    blemish: Blemish, incoming: Path, tmp_path: Path
) -> None:
    def saved(grey: np.ndarray, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grey.astype(np.uint16) << 4).save(path)

    for i in range(6):
        saved(part("disc", 20 + i)[0][..., 0], tmp_path / "good" / f"{i}.png")
        saved(part("disc", i)[0][..., 0], incoming / f"{i}.png")
    assert blemish("fit", tmp_path / "good", "-o", tmp_path / "model", *METHOD).exit_code == 0

    def photos() -> set[str]:
        assert blemish("inspect", tmp_path / "model", incoming, "-o", tmp_path / "out", "--no-overlays").exit_code == 0
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        return set(re.findall('src="(data:image/jpeg[^"]*)"', page))

    while_seen = photos()
    assert len(while_seen) == 6  # all are good: their pictures without heat
    assert photos() == while_seen


def test_counts_agree_everywhere_and_add_up(blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path) -> None:
    (incoming / "broken.png").write_bytes(b"no picture")
    result = blemish("inspect", disc_model, incoming, "-o", tmp_path / "out")
    assert result.exit_code == 3
    rows, summary = rows_of(tmp_path / "out"), summary_of(tmp_path / "out")
    verdicts = Counter(row["verdict"] for row in rows if row["error"] is None)
    assert verdicts == {"good": 4, "defective": 2}
    assert Counter(row["verdict"] for row in table_of(tmp_path / "out")) == verdicts + Counter({"": 1})
    assert summary["verdicts"] == {verdict: verdicts[verdict] for verdict in VERDICTS}
    assert summary["files"] == len(rows) == 7
    assert summary["inspected"] + summary["unreadable"] == summary["files"]
    assert summary["complete"] is True
    assert "6 inspected: 2 defective, 4 good; 1 unreadable" in result.stdout
    assert "2 of 6 defective" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert {line.split(": ")[0] for line in result.stdout.splitlines() if line.startswith("defective ")} == {
        f"defective  {incoming / f'{i}.png'}" for i in (4, 5)
    }


def test_the_terminal_names_unknown_parts_first_and_says_how_many_alarms_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(i: int, verdict: Verdict, score: float, regions: tuple[Region, ...] = ()) -> Prediction:
        empty = np.zeros((0, 0), np.float32)
        return Prediction(score, 0.1, 2.0, verdict, empty, regions, unsure_threshold=1.0, source=f"{i}.png")

    done = Inspection(InspectionReport(title="", model_facts={}, calibration=[]))
    spot = Region((0, 0, 3, 3), 9, 3.0, 2.0, (1.5, 1.5), words="Dark spot")
    for one in (
        found(0, "good", 0.5),
        found(1, "unsure", 1.6, (spot,)),
        *(found(i, "defective", 6.0 + i) for i in range(2, 12)),
        found(12, "unknown", 0.1),
    ):
        done.report.add(one, lambda: np.zeros((8, 8, 3), np.uint8))
        done.add_alarm(one)
    done.say(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unknown    12.png: unlike any part that the model learned"
    assert lines[1] == "defective  11.png: 8.5× the limit"
    assert lines[10] == "… and 2 more, see results.csv"
    only = Inspection(InspectionReport(title="", model_facts={}, calibration=[]))
    only.report.add(found(1, "unsure", 1.6, (spot,)), lambda: np.zeros((8, 8, 3), np.uint8))
    only.add_alarm(found(1, "unsure", 1.6, (spot,)))
    only.say(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unsure     1.png: Dark spot"
    assert lines[1].startswith("1 inspected")


def test_an_unknown_part_never_passes_as_good(blemish: Blemish, pooled_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    stripes = np.zeros((64, 80, 3), np.uint8)
    stripes[:, ::4] = 255
    Image.fromarray(stripes).save(tmp_path / "in" / "other.png")
    result = blemish("inspect", pooled_model, tmp_path / "in", "-o", tmp_path / "out", "--fail-on-defect")
    (row,) = rows_of(tmp_path / "out")
    assert row["verdict"] == "unknown"
    assert row["is_defective"] is False
    assert result.exit_code == 1
    assert "1 inspected: 0 defective, 0 good, 1 unknown" in result.stdout
    assert summary_of(tmp_path / "out")["verdicts"]["unknown"] == 1


def test_the_same_command_again_does_only_what_is_left(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, decoded: Counter[str]
) -> None:
    out = tmp_path / "out"
    later = [shutil.move(incoming / f"{i}.png", tmp_path) for i in (3, 5)]
    assert blemish("inspect", disc_model, incoming, "-o", out).exit_code == 0
    before = {row["file"]: row for row in rows_of(out)}
    for file in later:
        shutil.move(file, incoming)
    Image.fromarray(part("disc", 77, defective=True)[0]).save(incoming / "0.png")  # another picture of the old name
    result = blemish("inspect", disc_model, incoming, "-o", out)
    assert result.exit_code == 0, result.output
    assert "3 of them inspected by an earlier run" in result.stdout
    assert "6 inspected: 3 defective, 3 good" in result.stdout
    assert summary_of(out)["files"] == 6
    rows = {row["file"]: row for row in rows_of(out)}
    assert len(rows) == len(rows_of(out)) == len(table_of(out)) == 6
    assert rows[str(incoming / "0.png")]["verdict"] == "defective"
    same = [str(incoming / f"{i}.png") for i in (1, 2, 4)]
    assert [rows[file] for file in same] == [before[file] for file in same]
    assert {row["overlay"] for row in rows.values()} == {f"overlays/{p.name}" for p in (out / "overlays").iterdir()}


def test_a_finished_run_is_not_repeated_and_restart_repeats_it(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("inspect", disc_model, incoming, "-o", out, "--fail-on-defect")
    assert blemish(*arguments).exit_code == 1
    before = rows_of(out)
    again = blemish(*arguments)
    assert again.exit_code == 1
    assert "6 of them inspected by an earlier run" in again.stdout
    assert rows_of(out) == before
    anew = blemish(*arguments, "--restart")
    assert anew.exit_code == 1
    assert "earlier run" not in anew.stdout
    assert [row["score"] for row in rows_of(out)] == [row["score"] for row in before]
    assert [row["seconds"] for row in rows_of(out)] != [row["seconds"] for row in before]


def test_results_of_another_model_or_category_are_refused_unless_restarted(
    blemish: Blemish, disc_model: Path, pooled_model: Path, incoming: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert blemish("inspect", pooled_model, incoming, "-o", out).exit_code == 0
    before = files_in(out)
    for model, more in ((disc_model, ()), (pooled_model, ("--category", "ring"))):
        result = blemish("inspect", model, incoming, "-o", out, *more)
        assert result.exit_code == 2
        assert "--restart" in result.stderr
        added = blemish("inspect", model, incoming, "-o", out, "--append", *more)
        assert added.exit_code == 2
        assert "name another folder with -o" in added.stderr
        assert "--restart" not in added.stderr  # the two exclude each other
        assert files_in(out) == before
    assert blemish("inspect", disc_model, incoming, "-o", out, "--restart").exit_code == 0
    assert {row["category"] for row in rows_of(out)} == {"disc"}
    assert summary_of(out)["model"] == disc_model.name


def test_append_keeps_the_results_of_other_files(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (incoming / "a").mkdir()
    shutil.copy(incoming / "5.png", incoming / "a" / "0.png")  # the same name, so a second overlay "0-2.jpg"
    for some in (("0.png", "1.png"), ("a/0.png",), ("5.png", "1.png")):
        result = blemish("inspect", disc_model, *(incoming / name for name in some), "-o", out, "--append")
        assert result.exit_code == 0
    assert "\n1 of them inspected by an earlier run" in result.stdout  # of this run's two, not of the folder's three
    assert "--restart" not in result.output  # it would remove the results that --append keeps
    rows = rows_of(out)
    assert sorted(Path(row["file"]).name for row in rows) == ["0.png", "0.png", "1.png", "5.png"]
    assert len({row["overlay"] for row in rows}) == len(list((out / "overlays").iterdir())) == 4
    assert summary_of(out)["files"] == 4
    assert blemish("inspect", disc_model, incoming, "-o", out, "--append", "--restart").exit_code == 2


def test_results_of_scans_that_were_measured_otherwise_are_refused(
    blemish: Blemish, disc_model: Path, tmp_path: Path
) -> None:
    out, camera = tmp_path / "out", ("--intrinsics", "500,500,40,32")
    picture = part("disc", 0)[0]
    scan = tmp_path / "scan.npz"  # its colours are the picture
    np.savez(scan, depth=np.full(picture.shape[:2], 500, dtype=np.uint16), rgb=picture)
    one = ("inspect", disc_model, scan, "-o", out)
    assert blemish(*one, *camera, "--depth-scale", 0.001, "--units", "m").exit_code == 0
    assert summary_of(out)["geometry"]["depth_scale"] == 0.001
    again = blemish(*one, *camera, "--depth-scale", 0.001, "--units", "m")
    assert "1 of them inspected by an earlier run" in again.stdout
    for options, words in (
        ((*camera, "--depth-scale", 0.002, "--units", "m"), "depth 0.001 a level"),
        ((*camera, "--depth-scale", 0.001, "--units", "mm"), "same --units"),
        ((), "another one (m)"),
    ):
        result = blemish(*one, *options)
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())
    assert blemish(*one, "--restart", *camera, "--depth-scale", 0.002).exit_code == 0


def test_overlays_and_maps_that_are_missing_are_made(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert blemish("inspect", disc_model, incoming, "-o", out, "--no-overlays").exit_code == 0
    assert blemish("inspect", disc_model, incoming, "-o", out).exit_code == 0
    (out / "overlays" / "3.jpg").unlink()
    result = blemish("inspect", disc_model, incoming, "-o", out)
    assert "5 of them" in result.stdout
    assert len(list((out / "overlays").iterdir())) == 6
    assert blemish("inspect", disc_model, incoming, "-o", out, "--maps").exit_code == 0
    assert all((out / row["map"]).is_file() and (out / row["overlay"]).is_file() for row in rows_of(out))


def test_unreadable_files_are_tried_again(blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = (incoming / "3.png").read_bytes()
    (incoming / "3.png").write_bytes(good[:500])
    assert blemish("inspect", disc_model, incoming, "-o", out).exit_code == 3
    assert blemish("inspect", disc_model, incoming, "-o", out).exit_code == 3
    (incoming / "3.png").write_bytes(good)
    assert blemish("inspect", disc_model, incoming, "-o", out).exit_code == 0
    assert len(rows_of(out)) == 6
    assert all(row["error"] is None for row in rows_of(out))


def test_a_file_that_vanishes_meanwhile_costs_nothing_else(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file goes as soon as its prediction is there; the last one before it could be read."""
    from blemish.cli import inspection

    write = inspection.write_item

    def vanish(item: Any, *arguments: Any) -> None:
        (incoming / "5.png").unlink(missing_ok=True)
        item.sample.image.unlink(missing_ok=True)
        write(item, *arguments)

    monkeypatch.setattr(inspection, "write_item", vanish)
    result = blemish("inspect", disc_model, incoming, "-o", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert result.exit_code == 3
    assert len(rows) == 6
    assert "5.png" in result.stderr
    assert [row["error"] is None for row in rows] == [True] * 5 + [False]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 5


def test_an_error_in_the_middle_loses_nothing_that_was_done(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.cli import results

    out, draw = tmp_path / "out", results.overlay_of
    drawn: list[str] = []

    def interrupted(prediction: Any, image: Any) -> np.ndarray:
        drawn.append(prediction.source)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return draw(prediction, image)

    monkeypatch.setattr(results, "overlay_of", interrupted)
    result = blemish("inspect", disc_model, incoming, "-o", out)
    assert result.exit_code == 130
    assert "3 inspected so far are kept" in result.stderr
    assert len(rows_of(out)) == len(table_of(out)) == 3
    assert summary_of(out)["complete"] is False
    assert "No defect in 3 pictures" in (out / "report.html").read_text(encoding="utf-8")
    monkeypatch.undo()
    result = blemish("inspect", disc_model, incoming, "-o", out)
    assert result.exit_code == 0
    assert "3 of them inspected by an earlier run" in result.stdout
    assert len(rows_of(out)) == 6
    assert summary_of(out)["complete"] is True
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_goes_on_where_it_was(blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = """
import os, signal
from blemish.cli.results import ResultWriter
put = ResultWriter._put
count = 0
def killed(self, row):
    global count
    count += 1
    if count == 4:
        self._lines.write('{"file": "half')
        self._lines.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, row)
ResultWriter._put = killed
"""
    ended = subprocess.run(command("inspect", disc_model, incoming, "-o", out, before=before), check=False, timeout=600)
    assert ended.returncode == -signal.SIGKILL
    assert len(list((out / "overlays").iterdir())) == 4
    (out / ".partial-999999999").mkdir()
    result = blemish("inspect", disc_model, incoming, "-o", out)
    assert result.exit_code == 0, result.output
    assert "3 of them inspected by an earlier run" in result.stdout
    assert len(rows_of(out)) == len(table_of(out)) == len(list((out / "overlays").iterdir())) == 6
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_links_in_the_output_folder_are_not_followed(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path
) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine.jpg"
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    mine.write_bytes(b"mine")
    (out / "overlays").symlink_to(tmp_path / "elsewhere")
    assert blemish("inspect", disc_model, incoming, "-o", out).exit_code == 0
    (tmp_path / "elsewhere" / "0.jpg").unlink()
    (tmp_path / "elsewhere" / "0.jpg").symlink_to(mine)
    assert blemish("inspect", disc_model, incoming, "-o", out, "--restart").exit_code == 0
    assert mine.read_bytes() == b"mine"
    assert (out / "overlays").is_symlink()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 6


def test_two_runs_in_one_folder_are_refused(blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path) -> None:
    from blemish.utils.locking import exclusive

    with exclusive(tmp_path / "out"):
        result = blemish("inspect", disc_model, incoming, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "no other run" in result.stderr


def test_formulas_in_names_stay_text_in_spreadsheets(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(incoming)
    (incoming / "0.png").rename(incoming / "=1+1.png")
    assert blemish("inspect", disc_model, "=1+1.png", "-o", tmp_path / "out").exit_code == 0
    assert rows_of(tmp_path / "out")[0]["file"] == "=1+1.png"
    assert table_of(tmp_path / "out")[0]["file"] == "'=1+1.png"


def test_other_files_are_counted_and_own_results_left_out(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path
) -> None:
    for name in ("a.cr2", "b.cr2", "c.svg"):
        (incoming / name).write_bytes(b"x")
    out = incoming / "results"
    for _ in range(2):
        result = blemish("inspect", disc_model, incoming, "-o", out, "--restart")
        assert result.exit_code == 0
        assert "3 other files were not looked at" in result.stdout
        assert len(rows_of(out)) == 6
    assert "left out" in result.stdout
    summary = summary_of(out)
    assert summary["other_files"] == {".cr2": 2, ".svg": 1}
    assert len(summary["folders_left_out"]) == 1
    assert "3 other files were not looked at" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", ["a file", "stdin"])
def test_lists_of_images(disc_model: Path, incoming: Path, tmp_path: Path, given: str) -> None:
    from typer.testing import CliRunner

    from blemish.cli.main import app

    text = "\n".join(str(incoming / f"{i}.png") for i in (0, 4)) + "\n"
    (tmp_path / "list.txt").write_text(text)
    words = ["inspect", str(disc_model), f"@{tmp_path / 'list.txt'}" if given == "a file" else "-"]
    result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")], input=text)
    assert result.exit_code == 0, result.output
    assert [Path(row["file"]).name for row in rows_of(tmp_path / "out")] == ["0.png", "4.png"]


@pytest.mark.parametrize("place", ["model", "path", "output"])
def test_an_empty_path_is_an_error(
    blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(incoming)
    model, path, out = (
        "" if place == name else value
        for name, value in zip(("model", "path", "output"), (disc_model, incoming, tmp_path / "out"), strict=True)
    )
    result = blemish("inspect", model, path, "-o", out)
    assert result.exit_code == 2
    assert "empty" in result.stderr
    assert not (tmp_path / "out").exists()
    assert len(list(incoming.iterdir())) == 6


def test_the_encoder_can_be_named(blemish: Blemish, disc_model: Path, incoming: Path, tmp_path: Path) -> None:
    named = blemish("inspect", disc_model, incoming, "-o", tmp_path / "a", "--encoder", "pixels")
    assert named.exit_code == 0, named.output
    other = blemish("inspect", disc_model, incoming, "-o", tmp_path / "b", "--encoder", str(tmp_path / "nowhere"))
    assert other.exit_code == 2
    assert "nowhere" in other.stderr
    assert blemish("inspect", disc_model, incoming, "-o", tmp_path / "c").exit_code == 0
    assert [r["score"] for r in rows_of(tmp_path / "c")] == [r["score"] for r in rows_of(tmp_path / "a")]


@pytest.mark.parametrize(
    ("shots", "calibrate", "sentence"),
    [
        (1, False, "It was taken from slightly changed copies of 1 good picture, "),
        (6, False, "It was taken from 6 good pictures, each scored by a model that had not seen it ("),
        (6, True, "It was taken from 8 good pictures that the model did not learn from."),
    ],
)
def test_the_report_says_in_sentences_where_the_limit_comes_from(
    blemish: Blemish, parts: Path, tmp_path: Path, shots: int, calibrate: bool, sentence: str
) -> None:
    model = tmp_path / "model"
    assert blemish("fit", parts / "disc", "-o", model, *METHOD, "--shots", shots).exit_code == 0
    if calibrate:
        new = write_category(tmp_path / "new" / "disc", "disc", train=0, test=8) / "test" / "good"
        assert blemish("calibrate", model, new, "--replace").exit_code == 0
    assert blemish("inspect", model, parts / "disc" / "test" / "good", "-o", tmp_path / "out").exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    text = " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())
    assert f"The limit aims at 5 % false alarms. {sentence}" in text
