from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from cli_parts import METHOD, Blemish, Process, command, part, write_category

from blemish import Inspector
from blemish.cli.fit import fast_image_size
from blemish.detectors.hybrid import FAST_IMAGE_SIZE, Hybrid
from blemish.errors import SettingsError

# Python that runs in the process before the program, and stops it at a known place until it is killed.
STOP_WHILE_LEARNING = """
import sys, time
from blemish.model.inspector import Inspector
def fit(self, *arguments, **settings):
    print("here", flush=True)
    time.sleep(600)
Inspector.fit = fit
"""
STOP_WHILE_SAVING = """
import time
from blemish.utils import atomic
def stop(*arguments):
    print("here", flush=True)
    time.sleep(600)
atomic._replace_folder = stop
"""
STOP_BETWEEN_RENAMES = """
import os, time
from blemish.utils import atomic
atomic._swapped = lambda one, other: False
rename = os.rename
def once(source, target):
    rename(source, target)
    print("here", flush=True)
    time.sleep(600)
atomic.os.rename = once
"""


def ended_by(number: signal.Signals, arguments: list[object], before: str) -> tuple[int, str]:
    """Start the program, wait until it says where it is, send the signal; gives back its exit code and its words."""
    with subprocess.Popen(
        command(*arguments, before=before), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        for line in started.stdout:
            if line.strip() == "here":
                break
        time.sleep(0.05)
        started.send_signal(number)
        _, words = started.communicate(timeout=300)
    return started.returncode, words


def visible(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_fit_says_what_the_limit_rests_on(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    result = blemish("fit", parts, "-o", tmp_path / "model", *METHOD)
    assert result.exit_code == 0, result.output
    assert "patchcore on pixels at 64 px" in result.stdout
    assert "disc: Limit from" in result.stdout
    assert "ring: Limit from" in result.stdout
    assert {"settings.json", "weights.safetensors", "calibration.json"} <= {
        p.name for p in (tmp_path / "model").iterdir()
    }


def test_shots_are_those_that_other_programs_draw(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    """Learning from K shots is learning from the files that the documented formula names."""
    files = sorted((parts / "disc" / "train" / "good").iterdir())
    drawn = [files[i] for i in np.random.RandomState(5).permutation(len(files))[:2]]
    assert blemish("fit", parts / "disc", "-o", tmp_path / "a", "--shots", 2, "--seed", 5, *METHOD).exit_code == 0
    assert blemish("fit", *drawn, "-o", tmp_path / "b", "--seed", 5, *METHOD).exit_code == 0
    learned = [json.loads((tmp_path / name / "settings.json").read_text())["fingerprints"] for name in "ab"]
    assert learned[0] == learned[1]
    assert len(learned[0]) == 2


def test_the_same_seed_gives_the_same_model(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert blemish("fit", parts / "disc", "-o", tmp_path / name, *METHOD).exit_code == 0
    assert visible(tmp_path / "a") == visible(tmp_path / "b")


def test_the_false_alarm_rate_and_settings_reach_the_model(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    result = blemish(
        *(
            "fit",
            parts / "disc",
            "-o",
            tmp_path / "m",
            *METHOD,
            "--false-alarm-rate",
            "0.2",
            "--set",
            "reweighting_neighbours=3",
        )
    )
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "m" / "settings.json").read_text())
    assert settings["false_alarm_rate"] == 0.2
    assert settings["detector"]["settings"]["reweighting_neighbours"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--detector", "patchcores"),
        ("--encoder", "pixel"),
        ("--set", "no_such_setting=1"),
        ("--set", "nonsense"),
        ("--set", "seed=3"),
        ("--set", "precision=fp32"),
        ("--set", "text-encoder=minilm"),
        ("--set", "bit_depth=12"),
        ("--set", "units=mm"),
        ("--set", "geometry=1"),
        ("--false-alarm-rate", "1.5"),
        ("--shots", "7"),
        ("--encoder", "./no/such/folder"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(
    blemish: Blemish, parts: Path, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    result = blemish("fit", parts / "disc", "-o", tmp_path / "m", *METHOD, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: expected ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit",),
        ("fit", "x"),
        ("fit", "x", "-o"),
        ("fit", "x", "-o", "y", "--shots", "0"),
        ("fit", "x", "-o", "y", "--seed", 2**64),
        ("fit", "x", "-o", "y", "--nay"),
        ("inspect", "x"),
        ("evaluate", "-o", "y"),
        ("nothing",),
        ("list", "cows"),
        ("fit", "x", "-o", "y", "--device", "tpu"),
    ],
)
def test_wrong_usage_ends_with_two(blemish: Blemish, arguments: tuple[str, ...]) -> None:
    assert blemish(*arguments).exit_code == 2


def test_a_folder_without_good_images_is_refused(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    only_defects = write_category(tmp_path / "broken", "disc", train=0, test=2)
    (only_defects / "train" / "good").rmdir()
    for folder in (tmp_path / "empty", only_defects, parts / "disc" / "test" / "scratch"):
        result = blemish("fit", folder, "-o", tmp_path / "m", *METHOD)
        assert result.exit_code == 2, result.output
        assert not (tmp_path / "m").exists()


def test_a_folder_that_is_no_model_is_not_replaced(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    result = blemish("fit", parts / "disc", "-o", tmp_path / "thesis", *METHOD)
    assert result.exit_code == 2
    assert visible(tmp_path) == {"thesis/chapter.txt": b"mine"}


@pytest.mark.parametrize("place", ["folder of pictures", "below a file"])
def test_where_no_model_can_be_saved_nothing_is_learned(
    blemish: Blemish, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def learn(*arguments: object, **settings: object) -> None:
        raise AssertionError("it learned first")

    monkeypatch.setattr("blemish.model.inspector.Inspector.fit", learn)
    (tmp_path / "file").write_text("mine")
    model = parts / "disc" / "test" / "good" if place == "folder of pictures" else tmp_path / "file" / "model"
    result = blemish("fit", parts / "disc", "-o", model, *METHOD)
    assert result.exit_code == 2, result.output
    assert ("a folder with other files" if place == "folder of pictures" else "a file where a folder") in result.stderr


def test_the_model_that_is_replaced_is_named(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    command = ("fit", parts / "disc", "-o", tmp_path / "model", *METHOD)
    assert "replaces" not in blemish(*command).stdout
    again = blemish(*command)
    assert re.search(r"It replaces the model of \d{4}-\d\d-\d\d \d\d:\d\d, patchcore on pixels\n", again.stdout)
    (tmp_path / "model" / "settings.json").write_text("{}")
    assert ", which could not be read\n" in blemish(*command).stdout


def test_the_second_part_of_learning_has_a_name(
    blemish: Blemish, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blemish.cli.progress.EVERY", 0)
    result = blemish("fit", parts / "disc", "-o", tmp_path / "model", *METHOD)
    steps = [line.split("%")[1].split(",")[0].strip() for line in result.stderr.splitlines() if "%  " in line]
    assert list(dict.fromkeys(steps)) == ["learning", "setting the limit"]
    assert steps == sorted(steps)


def test_a_broken_good_image_is_named(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    folder = write_category(tmp_path / "disc", "disc")
    (folder / "train" / "good" / "005.png").write_bytes(b"")
    result = blemish("fit", folder, "-o", tmp_path / "m", *METHOD)
    assert result.exit_code in (2, 3)
    assert "005.png" in result.stderr


def test_the_traceback_comes_only_when_asked(blemish: Blemish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BLEMISH_DEBUG", raising=False)
    assert "Traceback" not in blemish("fit", tmp_path, "-o", tmp_path / "m").stderr
    assert "Traceback" in blemish("--debug", "fit", tmp_path, "-o", tmp_path / "m").stderr
    monkeypatch.setenv("BLEMISH_DEBUG", "1")
    assert "Traceback" in blemish("fit", tmp_path, "-o", tmp_path / "m").stderr


@pytest.mark.parametrize("name", ["/models/weights.safetensors", None])
def test_a_file_mode_is_no_fault_of_ours(
    blemish: Blemish, parts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    def denied(*arguments: object, **settings: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr("blemish.model.inspector.Inspector.fit", denied)
    result = blemish("fit", parts / "disc", "-o", tmp_path / "m", *METHOD)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: expected a file or folder that can be used")
    assert (name or "") in result.stderr
    assert "Permission denied; mend its permissions" in result.stderr


def test_a_fault_of_ours_is_not_mistaken_for_a_defect(
    blemish: Blemish, parts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("blemish.model.inspector.Inspector.fit", broken)
    result = blemish("fit", parts / "disc", "-o", tmp_path / "m", *METHOD)
    assert result.exit_code == 70
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_leaves_nothing(parts: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    arguments = ["fit", parts / "disc", "-o", tmp_path / "model", *METHOD]
    for before in (STOP_WHILE_LEARNING, STOP_WHILE_SAVING):
        ended, words = ended_by(number, arguments, before)
        assert ended == code, words
        assert "Traceback" not in words
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("before", [STOP_WHILE_LEARNING, STOP_WHILE_SAVING, STOP_BETWEEN_RENAMES])
def test_killing_fit_leaves_the_old_model(blemish: Blemish, parts: Path, tmp_path: Path, before: str) -> None:
    model = tmp_path / "model"
    assert blemish("fit", parts / "disc", "-o", model, *METHOD).exit_code == 0
    old = visible(model)
    ended, _ = ended_by(signal.SIGKILL, ["fit", parts / "ring", "-o", model, *METHOD], before)
    assert ended == -signal.SIGKILL
    if before is STOP_BETWEEN_RENAMES:
        assert not model.exists() or visible(model) == old
    else:
        assert visible(model) == old
        assert blemish("inspect", model, parts / "disc" / "test", "-o", tmp_path / "out").exit_code == 0
    assert blemish("fit", parts / "ring", "-o", model, *METHOD).exit_code == 0
    assert visible(model) != old
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "out"}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_inspection_keeps_what_was_done(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The signal comes while the first row is being written: that row is whole, and the next run goes on after it."""
    out = tmp_path / "out"
    before = """
import time
from blemish.cli.results import ResultWriter
write = ResultWriter.write
def slowly(self, *answer):
    print("here", flush=True)
    time.sleep(3)
    return write(self, *answer)
ResultWriter.write = slowly
"""
    arguments = ["inspect", disc_model, parts / "disc", "-o", out]
    ended, words = ended_by(number, arguments, before)
    assert ended == code, words
    assert {"results.csv", "results.jsonl", "report.html", "inspection.json", "overlays/000.jpg"} == set(visible(out))
    assert len((out / "results.jsonl").read_text().splitlines()) == 1
    assert len((out / "results.csv").read_text().splitlines()) == 2
    again = blemish(*arguments)
    assert again.exit_code == 0
    assert "1 of them inspected by an earlier run" in again.stdout
    assert len((out / "results.jsonl").read_text().splitlines()) == 6


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="limits")
def test_a_full_disk_is_reported_and_leaves_what_was_there(
    blemish: Blemish, process: Process, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    def small_files() -> None:  # writes beyond 1500 bytes a file fail, as they do on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for arguments in (
        ("fit", parts / "disc", "-o", tmp_path / "model", *METHOD),
        ("inspect", disc_model, parts / "disc", "-o", tmp_path / "out"),
    ):
        ended = process(*arguments, preexec_fn=small_files)
        assert ended.returncode == 2, ended.stderr
        assert "error: expected " in ended.stderr
        assert visible(tmp_path / "out")["notes.txt"] == b"mine"
        assert not (tmp_path / "model").exists()
    assert blemish("inspect", disc_model, parts / "disc", "-o", tmp_path / "out").exit_code == 0
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 6


def test_the_unit_of_points_reaches_the_model(blemish: Blemish, tmp_path: Path) -> None:
    for i in range(4):  # their colours are the pictures
        picture, depth = part("disc", i)[0], np.full((64, 80), 500.0)
        rows, columns = np.mgrid[:64, :80]
        np.savez(tmp_path / f"{i}.npz", xyz=np.stack([columns, rows, depth], axis=-1), rgb=picture)
    arguments = ("fit", *sorted(tmp_path.glob("*.npz")), "-o", tmp_path / "model", *METHOD)
    wrong = blemish(*arguments, "--units", "miles")
    assert (wrong.exit_code, "m, cm, mm, um, in" in wrong.output) == (2, True)
    result = blemish(*arguments, "--units", "mm")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "model" / "settings.json").read_text())["units"] == "mm"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--units", "mm"), ("--grid", "80x64"), ("--intrinsics", "500,500,40,32"), ("--depth-scale", "0.001")],
)
def test_what_is_said_of_points_is_refused_where_none_are_looked_at(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path, option: str, value: str
) -> None:
    for arguments in (
        ("fit", parts / "disc", "-o", tmp_path / "out", *METHOD),
        ("inspect", disc_model, parts / "disc" / "test", "-o", tmp_path / "out"),
    ):
        result = blemish(*arguments, option, value)
        assert result.exit_code == 2
        assert f"got {option} with one that looks at pictures alone" in " ".join(result.stderr.split())
        assert not (tmp_path / "out").exists()


def test_the_steps_of_height_maps_say_how_large_a_pixel_is(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    """To inspect pictures alone by them is no mistake; to learn from pictures alone is."""
    steps, model = ("--mm-per-pixel", "0.1,0.1,0.01"), tmp_path / "model"
    refused = blemish("fit", parts / "disc", "-o", model, *METHOD, *steps)
    assert (refused.exit_code, "--mm-per-pixel with one" in " ".join(refused.stderr.split())) == (2, True)
    assert blemish("fit", parts / "disc", "-o", model, *METHOD).exit_code == 0
    assert blemish("inspect", model, parts / "disc" / "test", "-o", tmp_path / "out", *steps).exit_code == 0


def test_what_is_ignored_is_told_drawn_and_written(blemish: Blemish, tmp_path: Path) -> None:
    from PIL import Image

    parts = write_category(tmp_path / "disc", "disc")
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[:16, 60:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    areas = ("--ignore", "0,0,20%,25%", "--ignore", f"disc={tmp_path / 'mask.png'}")
    told = blemish("fit", parts, "-o", tmp_path / "model", *METHOD, *areas)
    assert told.exit_code == 0, told.output
    assert "disc: Not judged: 11 % of every picture." in " ".join(told.output.split())
    image = np.array(Image.open(next((parts / "test" / "good").iterdir())).convert("RGB"))
    image[:16, 60:] = (250, 10, 10)
    Image.fromarray(image).save(tmp_path / "marked.png")
    out = tmp_path / "out"
    assert blemish("inspect", tmp_path / "model", tmp_path / "marked.png", "-o", out).exit_code == 0
    row = json.loads((out / "results.jsonl").read_text())
    assert row["verdict"] == "good"
    assert row["ignored_share"] == pytest.approx((16 * 20 + 16 * 16) / (64 * 80))
    page = (out / "report.html").read_text()
    assert "Hatched areas are not judged" in page
    assert "11 % of disc" in page
    drawn = np.asarray(Image.open(out / "overlays" / "marked.jpg")).astype(int)
    assert np.ptp(drawn[4:12, 64:76].mean(axis=(0, 1))) < np.ptp(image[4, 70].astype(int)) / 2  # greyed
    again = blemish("inspect", tmp_path / "model", tmp_path / "marked.png", "-o", out)  # from the row alone
    assert again.exit_code == 0
    assert "Hatched areas are not judged" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("area", "words"),
    [
        ("0,0,100%,100%", "left to judge"),
        ("0,0,90,64", "lies inside"),
        ("1,2,3", "x,y,width,height"),
        ("ring=0,0,9,9", "disc"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_an_impossible_area_is_refused(blemish: Blemish, tmp_path: Path, area: str, words: str) -> None:
    parts = write_category(tmp_path / "disc", "disc", train=2, test=1)
    told = blemish("fit", parts, "-o", tmp_path / "model", *METHOD, "--ignore", area)
    assert told.exit_code == 2
    assert words in " ".join(told.output.split())
    assert not (tmp_path / "model").exists()


def test_fast_is_a_smaller_image_for_the_default_alone() -> None:
    assert fast_image_size("auto", None, None) == fast_image_size("hybrid", None, None) < Hybrid().image_size
    for detector, size, product in (("patchcore", None, None), ("auto", 512, None), ("auto", None, "metal nut")):
        with pytest.raises(SettingsError, match="--fast"):
            fast_image_size(detector, size, product)


def test_fast_reaches_the_model(blemish: Blemish, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(Inspector, "fit", lambda self, *_, **__: sizes.append(self.image_size))
    monkeypatch.setattr(Inspector, "save", lambda self, folder: None)
    blemish("fit", parts / "disc", "-o", tmp_path / "m", "--fast")
    blemish("fit", parts / "disc", "-o", tmp_path / "m")
    assert sizes == [FAST_IMAGE_SIZE, Hybrid().image_size]
