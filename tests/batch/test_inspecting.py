"""Rows say what `Inspector` says of the same files, wherever those lie; what is wrong with a file is in its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch_parts import disc, rows_in
from PIL import Image

from blemish import Failure, Inspector, Sample
from blemish.batch import BatchSettings, Entry, run_batch
from blemish.batch.inspecting import InspectorRows
from blemish.batch.rows import Row, schema, table_of
from blemish.batch.run import origin_of
from blemish.errors import ModelError, OutputError, SettingsError

pytestmark = pytest.mark.filterwarnings("ignore::blemish.errors.DataWarning")


def maker(model: Path, out: Path | None = None) -> InspectorRows:
    return InspectorRows(
        model=str(model), origin=origin_of(model), out=out and str(out), device="cpu", encoder=None, threads=1
    )


def entries(folder: Path, head: str = "") -> list[Entry]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return [Entry(i, name, f"{head or folder}/{name}") for i, name in enumerate(names)]


def without_seconds(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in ("seconds", "uri", "error")} for row in rows]


def test_rows_are_the_predictions_of_the_inspector(disc_model: Path, pictures: Path, tmp_path: Path) -> None:
    inspector = Inspector.load(disc_model, device="cpu")
    given = entries(pictures)
    rows = list(maker(disc_model, tmp_path).rows(given))
    for entry, row in zip(given, rows, strict=True):
        (expected,) = inspector.inspect_many([Path(entry.uri)])
        if isinstance(expected, Failure):
            assert row["error"] == expected.error
            continue
        assert (row["score"], row["p_value"], row["verdict"]) == (expected.score, expected.p_value, expected.verdict)
        boxes = [(r["x"], r["y"], r["x"] + r["w"], r["y"] + r["h"]) for r in row["regions"]]
        assert boxes == [region.box for region in expected.regions]
        assert (row["overlay"] is not None) == (expected.verdict in ("defective", "unknown"))
        assert row["overlay"] is None or (tmp_path / row["overlay"]).is_file()
    assert {row["verdict"] for row in rows} >= {"defective", None}
    assert table_of(rows).schema == schema()


def test_the_overlay_of_a_picture_longer_than_a_jpeg_may_be_is_smaller(disc_model: Path, tmp_path: Path) -> None:
    Image.new("L", (66_000, 8)).save(tmp_path / "strip.png")
    (row,) = maker(disc_model, tmp_path / "out").rows([Entry(0, "strip.png", str(tmp_path / "strip.png"))])
    assert row["overlay"] is not None, row["error"]
    with Image.open(tmp_path / "out" / row["overlay"]) as drawn:
        assert max(drawn.size) == 65_500


def test_files_of_another_file_system_are_decoded_alike(disc_model: Path, pictures: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(pictures), "/line", recursive=True)
    made = maker(disc_model)
    local, remote = list(made.rows(entries(pictures))), list(made.rows(entries(pictures, "memory://line")))
    uri = list(made.rows(entries(pictures, pictures.as_uri())))
    assert without_seconds(local) == without_seconds(remote) == without_seconds(uri)
    assert [row["error"] is None for row in local] == [row["error"] is None for row in remote]
    (missing,) = made.rows([Entry(0, "x", "memory://line/nothing.png")])
    assert "memory://line/nothing.png" in missing["error"]


def test_one_image_that_breaks_the_program_leaves_the_others(
    disc_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.model import prediction

    made, given = maker(disc_model), entries(pictures)
    predict = prediction.predict

    def fails(model: Any, batch: Any) -> Any:
        if batch[0].sample.name.endswith("3.png"):
            raise ValueError("a fault")
        return predict(model, batch)

    monkeypatch.setattr(prediction, "predict", fails)
    rows = list(made.rows(given))
    assert [row["id"] for row in rows] == [entry.id for entry in given]
    assert sum("ValueError: a fault" in (row["error"] or "") for row in rows) == 1


@pytest.mark.parametrize("is_alone", [False, True])
def test_an_image_that_does_not_fit_into_memory_has_an_error(
    is_alone: bool, disc_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does by itself, though not beside others, has none."""
    from blemish.model import prediction

    made, given = maker(disc_model), entries(pictures)
    predict, tries = prediction.predict, 0

    def fails(model: Any, batch: Any) -> Any:
        nonlocal tries
        if any(one.sample.name.endswith("3.png") for one in batch):
            tries += 1
            if is_alone or tries == 1:
                raise MemoryError
        return predict(model, batch)

    broken = sum(row["error"] is not None for row in made.rows(given))
    monkeypatch.setattr(prediction, "predict", fails)
    errors = {row["id"]: row["error"] for row in made.rows(given)}
    assert list(errors) == [entry.id for entry in given]
    assert tries >= 2
    assert sum("memory" in (error or "") for error in errors.values()) == is_alone
    assert sum(error is not None for error in errors.values()) == broken + is_alone


def test_a_fault_of_every_image_ends_the_run(disc_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish.model import prediction

    def fails(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(prediction, "predict", fails)
    with pytest.raises(ValueError, match="a fault"):
        list(maker(disc_model).rows(entries(pictures) * 4))


def test_a_category_is_kept_or_refused_in_its_row(disc_model: Path, pictures: Path) -> None:
    """A model of one unnamed category is given none; its rows keep what the manifest says."""
    one = Entry(0, "a", str(pictures / "0.png"), category="disc")
    (row,) = maker(disc_model).rows([one])
    assert (row["category"], row["error"]) == ("disc", None)


def test_categories_that_alternate_are_one_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture is decoded while the one before is inspected, of whatever product; of each the rows are its own."""
    from blemish.model import prediction

    dark = {kind: [disc(seed) // shade for seed in range(6)] for kind, shade in (("bright", 1), ("dark", 3))}
    good = [Sample(image, category=kind) for kind, images in dark.items() for image in images]
    Inspector("pixels", "patchcore", image_size=64, device="cpu").fit(good).save(tmp_path / "model")
    given = []
    for i in range(6):
        Image.fromarray(disc(50 + i, defective=i > 3) // (3 if i % 2 else 1)).save(tmp_path / f"{i}.png")
        given.append(Entry(i, f"{i}", str(tmp_path / f"{i}.png"), category=("bright", "dark", None, "none")[i % 4]))
    made, stream, streams = maker(tmp_path / "model"), prediction.inspect_stream, []

    def counted(*arguments: Any, **options: Any) -> Any:
        streams.append(arguments)
        return stream(*arguments, **options)

    monkeypatch.setattr(prediction, "inspect_stream", counted)
    rows = list(made.rows(given))
    assert len(streams) == 1
    assert without_seconds(rows) == without_seconds([row for entry in given for row in made.rows([entry])])
    assert [row["category"] for row in rows] == ["bright", "dark", "bright", "none", "bright", "dark"]
    assert [row["error"] is not None for row in rows] == [False, False, False, True, False, False]
    assert [row["verdict"] for row in rows[-2:]] == ["defective"] * 2


def test_a_replaced_model_is_noticed(disc_model: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ModelError, match="began with"):
        InspectorRows(
            model=str(disc_model),
            origin=replace(origin_of(disc_model), model_sha256="0"),
            out=None,
            device="cpu",
            encoder=None,
            threads=1,
        )


def test_a_batch_by_processes(disc_model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = BatchSettings(model=disc_model, source=str(pictures), out=out, workers=1, threads=1, device="cpu")
    found = run_batch(settings)
    rows = rows_in(out)
    assert (found.rows, len(rows), found.errors) == (11, 11, 1)
    assert without_seconds(rows) == without_seconds(
        sorted(
            map(dict, table_of(list(maker(disc_model, out).rows(entries(pictures)))).to_pylist()), key=lambda r: r["id"]
        )
    )
    (pictures / "new.png").write_bytes((pictures / "0.png").read_bytes())
    with pytest.raises(SettingsError, match="pictures"):
        run_batch(settings)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file.txt").touch()
    with pytest.raises(OutputError, match="new or empty"):
        run_batch(BatchSettings(model=disc_model, source=str(pictures), out=tmp_path / "foreign"))
