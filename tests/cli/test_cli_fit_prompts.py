"""`blemish fit-prompts`, and what its file is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_parts import Blemish, write_category
from image_text_parts import write_model

from blemish.cli.fit_prompts import check_target


def test_prompts_of_rings_inspect_discs(blemish: Blemish, tmp_path: Path) -> None:
    encoder, prompts, model = write_model(tmp_path / "clip"), tmp_path / "prompts.safetensors", tmp_path / "model"
    write_category(tmp_path / "aux" / "ring", "ring")
    options = ["--encoder", encoder, "--image-size", 40, "--device", "cpu"]
    learned = blemish(
        "fit-prompts", tmp_path / "aux", "-o", prompts, "--epochs", 2, *options, "--cache", tmp_path / "c"
    )
    assert learned.exit_code == 0, learned.output
    assert "Learned from 6 pictures in 2 epochs" in learned.output
    made = blemish("fit", "--zero-shot", "disc", "--prompts", prompts, "-o", model, *options)
    assert made.exit_code == 0, made.output
    assert "anomalyclip" in made.output
    parts = write_category(tmp_path / "disc", "disc")
    assert blemish("inspect", model, parts / "test", "-o", tmp_path / "out").exit_code == 0


def test_what_cannot_be_learned_from_is_refused(blemish: Blemish, tmp_path: Path) -> None:
    encoder = write_model(tmp_path / "clip")
    write_category(tmp_path / "aux" / "ring", "ring")
    for arguments, words in (
        (["--encoder", "pixels"], "reads sentences as well"),
        (["--encoder", encoder, "--category", "disc"], "disc"),
        (["--encoder", encoder, "--image-size", 51200], "an image_size of at least 1 pixel and at most"),
    ):
        refused = blemish("fit-prompts", tmp_path / "aux", "-o", tmp_path / "prompts", *arguments)
        assert refused.exit_code == 2
        assert words in " ".join(refused.output.split())
    assert not (tmp_path / "prompts").exists()


@pytest.mark.parametrize(
    ("target", "words"), [("file/prompts", "a place that can be written"), ("aux", "a file that the prompts go into")]
)
def test_a_target_that_cannot_be_written_is_refused_before_training(
    blemish: Blemish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, words: str
) -> None:
    def train(*arguments: object) -> None:
        raise AssertionError("prompts were trained first")

    monkeypatch.setattr("blemish.model.prompt_fitting.fit_prompts", train)
    write_category(tmp_path / "aux" / "ring", "ring")
    (tmp_path / "file").write_text("mine")
    options = ["--encoder", write_model(tmp_path / "clip"), "--device", "cpu"]
    refused = blemish("fit-prompts", tmp_path / "aux", "-o", tmp_path / target, *options)
    assert refused.exit_code == 2, refused.output
    assert words in " ".join(refused.output.split())


def test_checking_the_target_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("prompts")
    check_target(tmp_path / "old")
    check_target(tmp_path / "new" / "folder" / "prompts")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "prompts"
