"""`blemish fit --zero-shot` and what follows: ranks, no limit, limits after `calibrate`; `evaluate --shots 0`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_parts import Blemish, write_category
from image_text_parts import write_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("zero-shot") / "clip")


def speaking(encoder: Path) -> list[object]:
    return ["--encoder", encoder, "--image-size", 40, "--device", "cpu"]


def test_a_model_from_a_name_ranks_and_learns_its_limit_later(encoder: Path, blemish: Blemish, tmp_path: Path) -> None:
    parts, model, out = write_category(tmp_path / "disc", "disc"), tmp_path / "model", tmp_path / "out"
    made = blemish("fit", "--zero-shot", "metal disc", "-o", model, *speaking(encoder))
    assert made.exit_code == 0, made.output
    assert "metal disc: No limit yet" in made.output
    assert "Defective above" not in made.output
    found = blemish("inspect", model, parts / "test", "-o", out)
    assert found.exit_code == 0, found.output
    assert "6 unsure" in found.output
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["verdict"] for line in lines} == {"unsure"}
    assert len({line["score"] for line in lines}) == 6
    assert "no good picture was seen" in (out / "report.html").read_text(encoding="utf-8")
    renewed = blemish("calibrate", model, parts / "train" / "good")
    assert renewed.exit_code == 0, renewed.output
    again = blemish("inspect", model, parts / "test", "-o", tmp_path / "again")
    assert "6 unsure" not in again.output


def test_good_pictures_and_a_name(encoder: Path, blemish: Blemish, tmp_path: Path) -> None:
    parts = write_category(tmp_path / "disc", "disc")
    options = ["--detector", "winclip", "--product", "metal disc", *speaking(encoder)]
    made = blemish("fit", parts, "-o", tmp_path / "model", *options)
    assert made.exit_code == 0, made.output
    assert "metal disc: Limit from 6 good pictures" in made.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got neither"),
        (["GOOD", "--zero-shot", "nut"], "got both"),
        (["--zero-shot", ""], "a product's name in words"),
        (["--zero-shot", "n" * 300], "at most 80 characters"),
        (["--zero-shot", "nut", "--detector", "patchcore"], "fitted by a product's name"),
        (["--zero-shot", "nut", "--encoder", "pixels"], "reads sentences as well"),
    ],
)
def test_what_says_too_little_or_too_much_is_refused(
    arguments: list[str], words: str, blemish: Blemish, encoder: Path, tmp_path: Path
) -> None:
    given = arguments if "--encoder" in arguments else [*arguments, "--encoder", str(encoder)]
    refused = blemish("fit", *given, "-o", tmp_path / "model", "--device", "cpu")
    assert refused.exit_code == 2
    assert words in refused.output
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--ignore", "10%,5%,20%,8%"),
        ("--product", "nut"),
        ("--shots", 2),
        ("--clean",),
        ("--cache", "cache"),
        ("--assume-good",),
        ("--pages",),
    ],
)
def test_options_about_pictures_are_refused_without_any(
    option: tuple[object, ...], blemish: Blemish, encoder: Path, tmp_path: Path
) -> None:
    refused = blemish("fit", "--zero-shot", "nut", *option, "-o", tmp_path / "model", *speaking(encoder))
    assert refused.exit_code == 2
    assert f"{option[0]} with --zero-shot" in " ".join(refused.output.split())
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("detector", "options", "words"),
    [
        ("patchcore", ["--prompts", "p"], "--prompts with the detector patchcore"),
        ("winclip", ["--prompts", "p"], "--prompts with the detector winclip"),
        ("winclip", ["--text-encoder", "minilm"], "--text-encoder with the detector winclip"),
        ("patchcore", ["--text-encoder", "minilm"], "patchcore reads no sentences"),
        ("anomalyclip", ["--prompts", "p", "--text-encoder", "q"], "--prompts or --text-encoder"),
    ],
)
def test_what_the_detector_does_not_read_is_refused(
    detector: str, options: list[str], words: str, blemish: Blemish, encoder: Path, tmp_path: Path
) -> None:
    parts = write_category(tmp_path / "disc", "disc")
    refused = blemish("fit", parts, "--detector", detector, *options, "-o", tmp_path / "model", *speaking(encoder))
    assert refused.exit_code == 2
    assert words in " ".join(refused.output.split())
    assert not (tmp_path / "model").exists()


def test_evaluation_without_a_good_picture(encoder: Path, blemish: Blemish, tmp_path: Path) -> None:
    write_category(tmp_path / "set" / "disc", "disc")
    options = ["--detector", "winclip", "--seeds", 0, *speaking(encoder)]
    done = blemish("evaluate", tmp_path / "set", "--shots", "0,1", "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["shots"], row["n_train"]) for row in rows] == [("0", "0"), ("1", "1")]
    refused = blemish("evaluate", tmp_path / "set", "--shots", "0", "-o", tmp_path / "no", "--encoder", "pixels")
    assert refused.exit_code == 2
    assert "fitted by a name such as winclip" in refused.output


def test_the_list_says_which_encoders_can_speak(blemish: Blemish) -> None:
    listed = blemish("list", "encoders").output
    assert "reads text" in listed
