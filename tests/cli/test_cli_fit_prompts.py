"""`blemish fit-prompts`, and what its file is for."""

from __future__ import annotations

from pathlib import Path

from cli_parts import Blemish, write_category
from image_text_parts import write_model


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
    ):
        refused = blemish("fit-prompts", tmp_path / "aux", "-o", tmp_path / "prompts", *arguments)
        assert refused.exit_code == 2
        assert words in refused.output
    assert not (tmp_path / "prompts").exists()
