"""Rows, overlays and their names, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.cli.result_folder import (
    Origin,
    Wanted,
    begin_results,
    identity_of,
    refuse_other_origin,
    result_folder,
    write_summary,
)
from blemish.cli.results import COLUMNS, ResultWriter, prediction_of_row, read_rows
from blemish.errors import OutputError
from blemish.types import Prediction, Sample, ScanGeometry

Predict = Callable[..., Prediction]
IMAGE = np.full((96, 128, 3), 120, np.uint8)


def writer(folder: Path, **options: bool) -> ResultWriter:
    begin_results(folder, Origin(model="m"), [], Wanted(restart=True))
    return ResultWriter(folder, **options)


def test_a_row_says_all_of_its_prediction_but_the_map(tmp_path: Path, predict: Predict) -> None:
    shown = predict(source="a/b.png", score=0.8, box=(10, 20, 40, 50), category="disc")
    with writer(tmp_path) as results:
        results.write(shown, IMAGE, "abc")
        results.write_failure("c.png", "expected a picture")
    row, failed = read_rows(tmp_path)
    assert list(row) == list(failed) == list(COLUMNS)
    back = prediction_of_row(row)
    assert back.to_dict() == shown.to_dict()
    assert back.region_threshold == shown.region_threshold
    assert (row["overlay"], row["identity"], failed["error"]) == ("overlays/b.jpg", "abc", "expected a picture")
    assert failed["verdict"] is None


@pytest.mark.parametrize("torn", ['{"file": "half', '{"file": 1}\n', "[]\n", "\0\0\0\n", "\n", "null\n"])
def test_a_line_that_is_no_row_is_left_out(tmp_path: Path, predict: Predict, torn: str) -> None:
    with writer(tmp_path, overlays=False) as results:
        results.write(predict(source="a.png"), IMAGE)
    whole = (tmp_path / "results.jsonl").read_text()
    (tmp_path / "results.jsonl").write_text(torn + "\n" * (not torn.endswith("\n")) + whole + torn.rstrip("\n"))
    assert [row["file"] for row in read_rows(tmp_path)] == ["a.png"]
    (tmp_path / "results.jsonl").write_text(whole.rstrip("\n"))  # a whole row whose end of line is missing
    assert list(read_rows(tmp_path)) == []


@pytest.mark.parametrize("size", [(66_000, 8), (8, 66_000)])
def test_the_overlay_of_a_picture_longer_than_a_jpeg_may_be_is_smaller(
    tmp_path: Path, predict: Predict, size: tuple[int, int]
) -> None:
    """One picture of a line-scan camera must not end a run."""
    with writer(tmp_path) as results:
        row = results.write(predict(size=size), np.zeros((*size, 3), np.uint8))
    with Image.open(tmp_path / row["overlay"]) as drawn:
        assert max(drawn.size) == 65_500


def test_names_of_overlays_differ_in_more_than_capitals(tmp_path: Path, predict: Predict) -> None:
    sources = ["a.png", "A.png", "x/a.png", "a-2.png", "a-3.bmp", "a.jpg", ".png", "n" * 300 + ".png"]
    with writer(tmp_path, overlays=False, maps=True) as results:
        names = [results.write(predict(source=source), IMAGE)["map"] for source in sources]
    assert len({name.casefold() for name in names}) == len(list((tmp_path / "maps").iterdir())) == len(sources)
    assert names[0] == "maps/a.npy"


def test_rows_of_unchanged_files_alone_stay(tmp_path: Path, predict: Predict) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        file.write_bytes(b"pixels")
    samples, out, origin = [Sample(file) for file in files], tmp_path / "out", Origin(model="m")
    out.mkdir()
    begin_results(out, origin, samples, Wanted())
    write_summary(out, origin.to_dict())
    with ResultWriter(out) as results:
        for sample in samples:
            results.write(predict(source=sample.name), IMAGE, identity_of(sample))
    assert begin_results(out, origin, samples, Wanted()).rows == 3
    files[0].write_bytes(b"other pixels")
    seen: list[str] = []
    kept = begin_results(out, origin, samples, Wanted(), lambda row, sample: seen.append(sample.name))
    assert seen == [str(files[1]), str(files[2])]
    assert kept.identities == {identity_of(samples[1]), identity_of(samples[2])}
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["1.jpg", "2.jpg"]
    assert begin_results(out, origin, samples[2:], Wanted(append=True)).rows == 2
    with pytest.raises(
        OutputError, match=r"got those of 1 other picture; add --append, which keeps them, or --restart"
    ):
        begin_results(out, origin, samples[2:], Wanted())
    assert len(list(read_rows(out))) == 2
    assert begin_results(out, origin, samples, Wanted(restart=True)).rows == 0
    assert not (out / "overlays").exists()


def test_what_people_look_for_comes_first(tmp_path: Path, predict: Predict) -> None:
    with writer(tmp_path) as results:
        results.write(predict(source="a.png", score=0.8), IMAGE)
    head = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert head == list(COLUMNS) == list(next(read_rows(tmp_path)))
    assert head[:5] == ["file", "verdict", "reason", "score", "threshold"]
    assert head[-2:] == ["regions", "identity"]


@pytest.mark.parametrize("there", ["a picture", "a model", "pictures and results", "nothing", "other files"])
def test_a_folder_of_pictures_or_of_a_model_takes_no_results(tmp_path: Path, there: str) -> None:
    for name in {
        "a picture": ["part.png"],
        "a model": ["settings.json", "weights.safetensors"],
        "pictures and results": ["part.png", "results.jsonl"],
        "nothing": [],
        "other files": ["notes.txt"],
    }[there]:
        (tmp_path / name).write_bytes(b"mine")
    before = sorted(tmp_path.iterdir())
    if there in ("a picture", "a model"):
        with pytest.raises(OutputError, match=there.split()[1]), result_folder(tmp_path):
            pass
    else:
        with result_folder(tmp_path):
            pass
    assert sorted(tmp_path.iterdir()) == before


def test_identity_follows_content_place_and_time_of_all_files(tmp_path: Path) -> None:
    image, points = tmp_path / "a.png", tmp_path / "a.tiff"
    image.write_bytes(b"one")
    points.write_bytes(b"two")
    first = identity_of(Sample(image, points))
    assert first == identity_of(Sample(image, points))
    assert first != identity_of(Sample(image))
    points.write_bytes(b"three")
    assert first != identity_of(Sample(image, points))
    assert identity_of(Sample(IMAGE)) == identity_of(Sample(tmp_path / "nowhere.png")) == ""


def test_json_holds_what_no_text_can(tmp_path: Path, predict: Predict) -> None:
    with writer(tmp_path, overlays=False) as results:
        results.write(predict(source="odd-\udcff.png"), IMAGE)
    assert json.loads((tmp_path / "results.jsonl").read_text())["file"] == "odd-\udcff.png"


def test_rows_from_before_there_were_reasons_stay(tmp_path: Path, predict: Predict) -> None:
    image, out, origin = tmp_path / "a.png", tmp_path / "out", Origin(model="m")
    image.write_bytes(b"pixels")
    out.mkdir()
    begin_results(out, origin, [Sample(image)], Wanted())
    write_summary(out, origin.to_dict())
    with ResultWriter(out) as results:
        results.write(predict(source=str(image), score=0.8), IMAGE, identity_of(Sample(image)))
        results.write_failure("c.png", "expected a picture")
    earlier = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for row in earlier:
        del row["reason"]
    lines = [json.dumps(dict(sorted(row.items()))) + "\n" for row in earlier]  # their columns had another order
    (out / "results.jsonl").write_text("".join(lines))
    assert [row["reason"] for row in read_rows(out)] == ["", ""]
    assert begin_results(out, origin, [Sample(image)], Wanted(append=True)).rows == 2
    assert [list(row) for row in read_rows(out)] == [list(COLUMNS)] * 2
    assert (out / "overlays" / "a.jpg").is_file()


@pytest.mark.parametrize("earlier", ["en", None, "missing"])
def test_the_default_language_may_be_named_or_not(tmp_path: Path, predict: Predict, earlier: str | None) -> None:
    with writer(tmp_path) as results:
        results.write(predict(source="a.png"), IMAGE)
    facts = Origin(model="m").to_dict()
    assert facts["language"] == "en"
    write_summary(tmp_path, {k: v for k, v in (facts | {"language": earlier}).items() if v != "missing"})
    for language in (None, "en"):
        refuse_other_origin(tmp_path, Origin(model="m", language=language))
    with pytest.raises(OutputError, match=r"same --language .* another one \(en\)"):
        refuse_other_origin(tmp_path, Origin(model="m", language="de"))


def test_how_scans_were_measured_is_part_of_the_origin(tmp_path: Path, predict: Predict) -> None:
    with writer(tmp_path) as results:
        results.write(predict(source="a.png"), IMAGE)
    plain, steps = Origin(model="m"), Origin(model="m", geometry=ScanGeometry(mm_per_pixel=(0.1, 0.1, 0.01)))
    earlier = {name: value for name, value in plain.to_dict().items() if name not in ("units", "geometry")}
    write_summary(tmp_path, earlier)
    refuse_other_origin(tmp_path, plain)
    with pytest.raises(OutputError, match=r"same --intrinsics.* another one \(none\)"):
        refuse_other_origin(tmp_path, steps)
    write_summary(tmp_path, steps.to_dict())
    refuse_other_origin(tmp_path, steps)
    finer = Origin(model="m", geometry=ScanGeometry(mm_per_pixel=(0.1, 0.1, 0.02)))
    with pytest.raises(OutputError, match=r"0\.1 x 0\.1 x 0\.01 mm per pixel"):
        refuse_other_origin(tmp_path, finer)
