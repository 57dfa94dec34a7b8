"""What a folder, a pattern and a manifest mean; ids that come twice; many entries in bounded memory."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_parts import light, write_files
from PIL import Image

from blemish.batch import run_batch, unique
from blemish.batch.files import filesystem_of, local_path, uri_of
from blemish.batch.inspecting import sample_of
from blemish.batch.source import Entry, InputReader, entries_of, write_input
from blemish.batch.unique import UniqueTexts
from blemish.data.samples import image_of
from blemish.errors import BlemishError, DatasetError, DataWarning
from blemish.types import Sample


def png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_folder_and_a_pattern(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "b/1.jpg", "notes.txt", "out/_overlays/x.jpg"):
        png(tmp_path / name)
    notes: list[str] = []
    found = list(entries_of(str(tmp_path), tmp_path / "out", notes))
    assert [one[0] for one in found] == ["a.png", "b/1.jpg", "b/2.png"]
    assert found[1][1] == str(tmp_path / "b" / "1.jpg")
    assert ".txt" in notes[0]
    assert [one[0] for one in entries_of(f"{tmp_path}/**/*.png")] == ["a.png", "b/2.png"]
    assert [one[0] for one in entries_of(tmp_path.joinpath("b").as_uri())] == ["1.jpg", "2.png"]


def test_results_of_an_earlier_batch_are_no_pictures(tmp_path: Path) -> None:
    """A second run over a folder that holds the first one's results reads none of its overlays."""
    for name in ("line/1.png", "line/2.png", "results/_overlays/1.jpg"):
        png(tmp_path / name)
    run_batch(light(tmp_path / "line", tmp_path / "results"))
    notes: list[str] = []
    found = list(entries_of(str(tmp_path), tmp_path / "second", notes))
    assert [one[0] for one in found] == ["line/1.png", "line/2.png"]
    assert any(f"left out, first '{tmp_path / 'results'}'" in note for note in notes)
    with pytest.raises(DatasetError):
        list(entries_of(str(tmp_path / "results")))


def test_a_pattern_passes_over_results_and_takes_each_picture_once(tmp_path: Path) -> None:
    for name in ("line/1.png", "line/deep/2.png", "results/_overlays/000000/1.jpg"):
        png(tmp_path / name)
    run_batch(light(tmp_path / "line", tmp_path / "results"))
    notes: list[str] = []
    found = list(entries_of(f"{tmp_path}/**/**/*.*g", tmp_path / "second", notes))
    assert [one[0] for one in found] == ["line/1.png", "line/deep/2.png"]
    assert any(f"left out, first '{tmp_path / 'results'}'" in note for note in notes)
    (tmp_path / "line" / "gone.png").symlink_to(tmp_path / "nowhere")  # as in a folder: its row says so
    for source in (f"{tmp_path}/line/*.png", str(tmp_path / "line")):
        assert {"1.png", "gone.png"} <= {one[0] for one in entries_of(source)}
    overlays = list(entries_of(f"{tmp_path}/results/_overlays/**/*.jpg"))  # they are asked for
    assert [one[0] for one in overlays] == ["000000/1.jpg"]


def test_a_pattern_reads_each_folder_once_as_a_folder_does(tmp_path: Path) -> None:
    """Links in a circle would name a picture forty times over, and two circles never end."""
    for name in ("line/a/1.png", "line/b/2.png", "line/.trash/3.png", "elsewhere/4.png"):
        png(tmp_path / name)
    (tmp_path / "line/a/up").symlink_to("..")
    (tmp_path / "line/b/up").symlink_to("..")
    (tmp_path / "line/linked").symlink_to(tmp_path / "elsewhere")
    wanted = ["a/1.png", "b/2.png", "linked/4.png"]
    for source in ("line", "line/**", "line/**/*.png"):
        assert [one[0] for one in entries_of(str(tmp_path / source))] == wanted
    assert [one[0] for one in entries_of(f"{tmp_path}/li?e/**/[12].png")] == ["line/a/1.png", "line/b/2.png"]


def test_points_without_a_picture_are_counted(tmp_path: Path) -> None:
    png(tmp_path / "line" / "a.png")
    for name in ("line/points.npz", "rest/xyz/points.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / name, xyz=np.full((6, 5, 3), 0.1, np.float32), rgb=np.zeros((6, 5, 3), np.uint8))
    png(tmp_path / "rest" / "rgb" / "b.png")
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert [one[0] for one in entries_of(str(tmp_path), None, notes)] == ["line/a.png", "rest/rgb/b.png"]
    assert any("1 without a picture, of points alone, was left out" in note for note in notes)


def test_a_uri_names_the_page_of_a_file(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    first, *rest = (Image.new("L", (4, 3), level) for level in (10, 20))
    first.save(tmp_path / "a b.tif", save_all=True, append_images=rest)
    memory.pipe("/stacks/a b.tif", (tmp_path / "a b.tif").read_bytes())
    for uri in (str(tmp_path / "a b.tif"), (tmp_path / "a b.tif").as_uri(), "memory://stacks/a%20b.tif"):
        sample = sample_of(Entry(0, "a", f"{uri}#2"))
        assert isinstance(sample, Sample)
        assert image_of(sample)[0, 0].tolist() == [20, 20, 20]


def test_a_category_of_a_list_may_be_the_number_0(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"uri": "a.png", "category": 0, "id": 0}\n{"uri": "b.png", "category": ""}\n')
    found = list(entries_of(str(tmp_path / "a.jsonl")))
    assert [(one[0], one[2]) for one in found] == [("0", "0"), ("b.png", None)]


def test_the_category_of_a_dataset_is_recognised_as_when_it_is_inspected(tmp_path: Path) -> None:
    """So a product that the model does not know is an unknown part, as there, and no error."""
    for name in ("train/good", "test/good", "test/bent"):
        png(tmp_path / "nut" / name / "1.png")
        png(tmp_path / os.fsdecode(b"bolt\xff") / name / "1.png")
    found = list(entries_of(str(tmp_path)))
    assert len(found) == 4
    assert {category for _, _, category in found} == {None}
    assert write_input(found, tmp_path / "input.parquet", tmp_path).rows == 4


def test_a_folder_of_another_file_system(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name in ("b/2.png", "a.png", "b/1.jpg", "b/notes.txt"):
        memory.pipe(f"/listed/{name}", b"x")
    found = list(entries_of("memory://listed"))
    assert [one[0] for one in found] == ["a.png", "b/1.jpg", "b/2.png"]
    assert [one[1] for one in found][1] == "memory://listed/b/1.jpg"
    assert [one[0] for one in entries_of("memory://listed/**/*.png")] == ["a.png", "b/2.png"]
    assert [one[0] for one in entries_of("memory://listed/b/*.jpg")] == ["1.jpg"]
    memory.pipe("/listed/.trash/3.png", b"x")
    memory.pipe("/listed/b/._2.png", b"x")  # hidden ones are none
    assert [one[0] for one in entries_of("memory://listed")] == ["a.png", "b/1.jpg", "b/2.png"]
    filesystem, path = filesystem_of("memory://listed/a.png")
    assert filesystem.open_input_stream(path).read() == b"x"
    with pytest.raises(BlemishError, match="nowhere"):
        filesystem_of("nowhere://a/b")


@pytest.mark.parametrize(
    "pattern",
    [
        "**",
        "**/*",
        "b/**",
        "*",
        "[!a]*.png",
        "[^a].png",
        "?.png",
        "[a-c]*",
        "**/b/*.jpg",
        "x[/*.png",
        "[]]*",
        "b/[!/]*",
    ],
)
def test_a_pattern_means_the_same_in_every_file_system(pattern: str, tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("a.png", "b/2.png", "b/1.jpg", "c1.png", "^.png", "].png", "x[/9.png"):
        memory.pipe(f"/patterns/{name}", b"x")
        png(tmp_path / name)

    def found(head: str) -> list[str]:
        try:
            return [one[0] for one in entries_of(f"{head}/{pattern}")]
        except DatasetError:
            return []

    assert found("memory://patterns") == found(str(tmp_path))


def test_names_of_another_file_system_that_mean_something_in_a_uri() -> None:
    """Each is found again under the uri that it is listed by."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    names = ["100% good.png", "a#1.png", "b?.png", "plain.png"]
    for name in names:
        memory.pipe(f"/odd/{name}", name.encode())
    found = list(entries_of("memory://odd"))
    assert [one[0] for one in found] == names
    for identity, uri, _ in found:
        filesystem, path = filesystem_of(uri)
        assert filesystem.open_input_stream(path).read() == identity.encode()


def manifest_of(rows: list[dict[str, Any]], path: Path) -> Path:
    """The rows as a file of the kind that its suffix says."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_manifest_in_another_file_system(tmp_path: Path, kind: str) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    rows = [{"uri": f"{i} #.png", "id": f"{i:05}"} for i in range(3000)]
    path = manifest_of(rows, tmp_path / f"list.{kind}")
    memory.pipe(f"/lists/{path.name}", path.read_bytes())
    found = list(entries_of(f"memory://lists/{path.name}"))
    assert [one[0] for one in found] == [row["id"] for row in rows]
    assert found[7][1] == "memory://lists/7%20%23.png"


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_manifest(tmp_path: Path, kind: str) -> None:
    rows = [
        {"uri": "a.png", "id": "0012", "category": "nut", "more": 1},
        {"uri": "s3://bucket/b.png", "id": None, "category": None, "more": 2},
        {"uri": "/data/c.png", "id": "c", "category": None, "more": 3},
    ]
    path = manifest_of(rows, tmp_path / f"list.{kind}")
    expected = [
        ("0012", str(tmp_path / "a.png"), "nut"),
        ("s3://bucket/b.png", "s3://bucket/b.png", None),
        ("c", "/data/c.png", None),
    ]
    assert list(entries_of(str(path))) == expected


def test_a_manifest_as_people_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces behind the commas of the head, a mark before it, a list named from the home folder."""
    (tmp_path / "list.csv").write_bytes(b'\xef\xbb\xbfid, "uri"\r\n1,"a, b.png"\r\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = [("1", str(tmp_path / "a, b.png"), None)]
    assert list(entries_of(str(tmp_path / "list.csv"))) == list(entries_of("~/list.csv")) == expected


def test_a_manifest_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "half.jsonl").write_text('{"uri": "a\\ud83d"}\n')
    with pytest.raises(DatasetError, match=r"whole letters; got 'a\\ud83d' in the rows 1 to 1"):
        write_input(entries_of(str(tmp_path / "half.jsonl")), tmp_path / "input.parquet", tmp_path)
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DatasetError, match=r"in '.*none\.jsonl'; got none"):
        list(entries_of(str(tmp_path / "none.jsonl")))
    with pytest.raises(DatasetError, match=r"in '.*none\*\.png'; got none"):
        list(entries_of(f"{tmp_path}/none*.png"))
    (tmp_path / "no.csv").write_text("path\na.png\n")
    with pytest.raises(DatasetError, match="column uri"):
        list(entries_of(str(tmp_path / "no.csv")))
    (tmp_path / "empty.jsonl").write_text('{"uri": "a"}\n{"id": "b"}\n')
    with pytest.raises(DatasetError, match="row 2"):
        list(entries_of(str(tmp_path / "empty.jsonl")))
    with pytest.raises(DatasetError, match="readable manifest"):
        list(entries_of(str(tmp_path / "nothing.parquet")))


def test_the_input_is_read_back_by_number(tmp_path: Path) -> None:
    found = [(f"id{i}", f"/data/{i}.png", "nut" if i % 3 else None) for i in range(2500)]
    facts = write_input(iter(found), tmp_path / "input.parquet", tmp_path)
    assert facts.rows == 2500
    reader = InputReader(tmp_path / "input.parquet")
    for start, stop in ((0, 16), (1000, 1050), (1024, 2048), (2490, 2500), (0, 2500)):
        got = reader.entries(start, stop)
        assert [(one.number, one.id, one.uri, one.category) for one in got] == [
            (i, *found[i]) for i in range(start, stop)
        ]
    reader.close()
    changed = [*found[:-1], ("id2499", "/data/other.png", None)]
    assert write_input(changed, tmp_path / "other.parquet", tmp_path).sha256 != facts.sha256


def test_ids_that_come_twice_are_named(tmp_path: Path) -> None:
    found = [(f"id{i % 1999}", f"/data/{i}.png", None) for i in range(2001)]
    with pytest.raises(DatasetError, match=r"'id0' in rows 1 and 2,000 \(2 ids"):
        write_input(found, tmp_path / "input.parquet", tmp_path)


def test_repeated_texts_are_found_on_disk_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [str(i) for i in range(3000)] + ["17", "2999", "17"]
    expected = {UniqueTexts.digest("17"), UniqueTexts.digest("2999")}
    for held in (1 << 18, 100):
        monkeypatch.setattr(unique, "_HELD", held)
        with UniqueTexts(tmp_path / "ids") as ids:
            for start in range(0, len(texts), 64):
                ids.add(texts[start : start + 64])
            assert ids.repeated() == expected
    assert not any((tmp_path / "ids").iterdir())


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    odd = write_files(tmp_path / "odd", 1) / "0000.png"
    name = odd.with_name("\udcff#ä %.png")
    odd.rename(name)
    (found,) = entries_of(str(tmp_path / "odd"))
    assert local_path(found[1]) == name
    assert found[0].isascii()
    assert local_path(uri_of(tmp_path / "plain #1.png")) == tmp_path / "plain #1.png"
