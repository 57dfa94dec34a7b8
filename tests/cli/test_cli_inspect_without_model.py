"""`blemish inspect --no-model`: the same results as with a model, from pictures that judge one another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_parts import Blemish, part
from PIL import Image
from test_cli_inspect import rows_of, table_of

from blemish.cli.mutual import identity_of_set
from blemish.cli.results import COLUMNS
from blemish.encoders import build
from blemish.model.mutual_inspection import STATEMENT
from blemish.model.mutual_settings import MutualSettings
from blemish.types import Sample

OPTIONS = ("--no-model", "--encoder", "pixels", "--image-size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def incoming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, two of them with a scratch."""
    folder = tmp_path_factory.mktemp("incoming")
    for i in range(20):
        Image.fromarray(part("disc", i, defective=i in (3, 11))[0]).save(folder / f"{i:02}.png")
    return folder


def test_every_image_gets_a_row_an_overlay_and_a_place_in_the_report(
    blemish: Blemish, incoming: Path, tmp_path: Path
) -> None:
    result = blemish("inspect", *OPTIONS, incoming, "-o", tmp_path, "--maps", "--false-discovery-rate", "0.2")
    assert result.exit_code == 0, result.output
    rows, table = rows_of(tmp_path), table_of(tmp_path)
    assert [list(row) for row in rows] == [list(COLUMNS)] * 20
    assert len(table) == 20
    verdicts = {Path(row["file"]).stem: row["verdict"] for row in rows}
    assert {name for name, verdict in verdicts.items() if verdict == "defective"} >= {"03", "11"}
    assert list(verdicts.values()).count("good") >= 15
    assert all(row["alarm"] for row in rows if Path(row["file"]).stem in ("03", "11"))
    for row in rows:
        with Image.open(tmp_path / row["overlay"]) as overlay:
            assert overlay.size == (80, 64)
        assert np.load(tmp_path / row["map"]).shape == (64, 80)
        assert bool(row["regions"]) == (row["verdict"] != "good")


def test_terminal_page_and_summary_say_that_no_model_took_part(
    blemish: Blemish, incoming: Path, tmp_path: Path
) -> None:
    result = blemish("inspect", *OPTIONS, incoming, "-o", tmp_path, "--expected-defects", "0.2")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    summary = json.loads((tmp_path / "inspection.json").read_text(encoding="utf-8"))
    assert STATEMENT in result.output
    assert STATEMENT in page
    assert summary["notes"][0] == STATEMENT
    for text in (result.output, page):
        assert "20 % defective ones were expected" in text
        assert "no good picture was known" in text
    assert summary["complete"]
    assert summary["inspected"] == 20


def test_exit_codes_are_those_of_an_inspection_with_a_model(blemish: Blemish, incoming: Path, tmp_path: Path) -> None:
    assert blemish("inspect", *OPTIONS, incoming, "-o", tmp_path / "a", "--fail-on-defect").exit_code == 1
    some = tmp_path / "some"
    shutil.copytree(incoming, some)
    (some / "broken.png").write_text("this is no picture")
    result = blemish("inspect", *OPTIONS, some, "-o", tmp_path / "b")
    assert result.exit_code == 3
    assert "broken.png" in result.stderr
    rows = {Path(row["file"]).name: row for row in rows_of(tmp_path / "b")}
    assert len(rows) == 21
    assert rows["broken.png"]["error"]
    assert sum(row["score"] is not None for row in rows.values()) == 20


def test_the_same_command_keeps_what_is_there_and_another_set_is_refused(
    blemish: Blemish, incoming: Path, tmp_path: Path
) -> None:
    out, some = tmp_path / "out", tmp_path / "some"
    shutil.copytree(incoming, some)
    assert blemish("inspect", *OPTIONS, some, "-o", out).exit_code == 0
    before = (out / "results.jsonl").read_bytes()
    again = blemish("inspect", *OPTIONS, some, "-o", out)
    assert again.exit_code == 0
    assert "20 of them inspected by an earlier run" in again.output
    assert (out / "results.jsonl").read_bytes() == before
    (some / "19.png").unlink()
    refused = blemish("inspect", *OPTIONS, some, "-o", out)
    assert refused.exit_code == 2
    assert "--restart" in refused.output
    assert (out / "results.jsonl").read_bytes() == before
    assert blemish("inspect", *OPTIONS, some, "-o", out, "--restart").exit_code == 0
    assert len(rows_of(out)) == 19


def test_what_cannot_be_is_refused_before_anything_is_written(
    blemish: Blemish, incoming: Path, disc_model: Path, tmp_path: Path
) -> None:
    one = incoming / "00.png"
    (tmp_path / "nothing").mkdir()
    for arguments, message in (
        ((*OPTIONS, one), "expected at least 5 different pictures that judge one another; got 1; give more pictures"),
        ((*OPTIONS, tmp_path / "nothing"), "expected"),
        ((*OPTIONS, incoming, "--append"), "--no-model without --append"),
        ((*OPTIONS, incoming, "--expected-defects", "0.6"), "share of defects from 0 to 0.35"),
        ((*OPTIONS, incoming, "--false-alarm-rate", "2"), "a false-alarm rate between 0 and 1"),
        ((*OPTIONS[:2], "points-fpfh", incoming), "no measured points are compared"),
        ((disc_model, incoming, "--expected-defects", "0.1"), "--expected-defects together with --no-model"),
        ((disc_model,), "pictures to inspect after the model"),
    ):
        result = blemish("inspect", *arguments, "-o", tmp_path / "out")
        assert result.exit_code == 2, (arguments, result.output)
        assert message in " ".join(result.output.split()), result.output
        assert STATEMENT not in result.output
    assert not (tmp_path / "out" / "results.csv").exists()


def test_products_of_a_dataset_are_judged_apart(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    result = blemish("inspect", *OPTIONS, parts, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert {row["category"] for row in rows_of(tmp_path)} == {"disc", "ring"}
    assert {row["verdict"] for row in rows_of(tmp_path)} == {"unsure"}  # six of each are too few for verdicts
    assert "disc: Limit from 6 pictures alone, too few" in result.output
    assert "Against the known truth" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_device_is_no_part_of_what_decides_the_scores(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, samples = build("pixels", device="cpu"), [Sample(incoming / "00.png")]
    one, device, size = (
        identity_of_set(MutualSettings(encoder="pixels", **given), encoder, samples)
        for given in ({}, {"device": "cuda"}, {"image_size": 64})
    )
    assert one == device != size
    monkeypatch.setattr(encoder, "mean", (0.4, 0.5, 0.5))
    assert identity_of_set(MutualSettings(encoder="pixels"), encoder, samples) != one


@pytest.mark.parametrize("restart", [(), ("--restart",)])
def test_a_place_that_cannot_be_written_is_refused_before_pictures_are_compared(
    blemish: Blemish, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: tuple[str, ...]
) -> None:
    def compare(*arguments: object, **options: object) -> None:
        raise AssertionError("pictures were compared first")

    monkeypatch.setattr("blemish.model.mutual_inspection.inspect_mutually", compare)
    (tmp_path / "file").write_text("mine")
    result = blemish("inspect", *OPTIONS, incoming, "-o", tmp_path / "file" / "out", *restart)
    assert result.exit_code == 2, result.output
    assert "a place that can be written" in " ".join(result.output.split())


def test_regions_are_described_in_the_language_that_is_asked_for(
    blemish: Blemish, incoming: Path, tmp_path: Path
) -> None:
    result = blemish("inspect", *OPTIONS, incoming, "-o", tmp_path, "--language", "de", "--mm-per-pixel", "0.5")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [region for row in rows for region in row["regions"] or ()]
    assert found
    for region in found:
        assert "Stärke" in region["words"]
        assert region["attributes"]["length_mm"] == 0.5 * region["attributes"]["length"]
