"""Masked auto-encoding of points: what is hidden stays hidden, learning helps, the folder loads again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from point_parts import published, surface

from blemish import encoders
from blemish.encoders.points.point_mae_weights import SETTINGS, WEIGHTS, fill, published_names, read_tensors, renamed
from blemish.errors import DatasetError, SettingsError
from blemish.research.point_mae_pretraining import (
    LOSS,
    MaskedAutoencoder,
    Pretraining,
    drawn,
    framed,
    pretrain,
    pretraining_of,
)
from blemish.types import POINTS

TINY = Pretraining(
    steps=40, batch=4, points=256, groups=16, group_size=16, width=64, depth=2, decoder_depth=1, learning_rate=3e-3
)


def test_learning_lowers_the_loss() -> None:
    learned = pretrain([surface(i) for i in range(4)], TINY)
    first, last = learned.loss
    assert last < 0.3 * first
    assert learned.scans == 4


def test_the_seed_decides_all() -> None:
    one, same, other = (pretrain([surface()], pretraining_of({**vars(TINY), "steps": 3, "seed": s})) for s in (0, 0, 1))
    assert torch.equal(one.losses, same.losses)
    assert torch.equal(one.network.head.weight, same.network.head.weight)
    assert not torch.equal(one.losses, other.losses)


def test_what_was_learned_is_an_encoder(tmp_path: Path) -> None:
    learned = pretrain([surface(0)], pretraining_of({**vars(TINY), "steps": 2}))
    learned.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([LOSS, WEIGHTS, SETTINGS])
    facts = json.loads((tmp_path / SETTINGS).read_text())
    assert (facts["scans"], facts["learned"]["groups"]) == (1, 16)
    tensors = renamed(read_tensors(tmp_path / WEIGHTS), tmp_path)
    assert all(
        torch.equal(t.reshape(tensors[n].shape), tensors[n]) for n, t in learned.network.encoder.state_dict().items()
    )
    features = encoders.build(tmp_path).encode_points(surface(1)[None])  # type: ignore[attr-defined]
    assert features.layers[POINTS][0].shape == (1, 4, 4, 128)  # of two blocks: a third, two thirds and all of them


def test_written_names_and_shapes_are_the_published_ones() -> None:
    expected = published(depth=3)
    ours = published_names(MaskedAutoencoder(64, 3, 2).state_dict())
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in expected.items()}
    network = MaskedAutoencoder(64, 3, 2).encoder
    fill(network, renamed(expected, Path("here")), Path("here"))
    back = published_names({f"encoder.{n}": t for n, t in network.state_dict().items()})
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.items())


def test_hidden_groups_are_not_seen_but_shown_ones_are() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(64, 2, 1, 8).eval()
    groups, centres = torch.randn(2, 10, 8, 3), torch.randn(2, 10, 3)
    hidden = torch.zeros(2, 10, dtype=torch.bool)
    hidden[0, :6], hidden[1, 4:] = True, True
    guessed = model(groups, centres, hidden)
    assert guessed.shape == (2, 6, 8, 3)
    other = torch.where(hidden[..., None, None], torch.randn_like(groups), groups)
    assert torch.equal(model(other, centres, hidden), guessed)
    other = torch.where(hidden[..., None, None], groups, torch.randn_like(groups))
    assert not torch.allclose(model(other, centres, hidden), guessed)
    moved = centres + hidden[..., None] * 0.5
    assert not torch.allclose(model(groups, moved, hidden), guessed)  # it is told where to draw


def test_scans_are_brought_to_the_unit_sphere_and_changed_by_chance() -> None:
    cloud = framed(surface())
    assert cloud.norm(dim=1).max() == pytest.approx(1, abs=1e-6)
    assert cloud.mean(0).abs().max() < 1e-6
    torch.manual_seed(0)
    batch = drawn([cloud], TINY)
    assert batch.shape == (4, 256, 3)
    assert not torch.allclose(batch[0], batch[1])
    assert batch.abs().max() < 1.5 + 0.2


def test_scans_with_too_few_points_are_left_out() -> None:
    empty = np.full((32, 32, 3), np.nan, np.float32)
    assert pretrain([empty, surface()], pretraining_of({**vars(TINY), "steps": 1})).scans == 1
    for scans in ([], [empty], [surface(side=8)]):
        with pytest.raises(DatasetError, match="256 measured points"):
            pretrain(scans, TINY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, 0)
            for name in ("steps", "batch", "points", "groups", "group_size", "width", "depth", "decoder_depth")
        ),
        ("steps", 2.5),
        ("batch", True),
        ("seed", -1),
        ("width", 100),
        ("masking", 0.0),
        ("masking", 1.0),
        ("masking", "much"),
        ("masking", float("nan")),
        ("points", 8193),
        ("groups", 10_000),
        ("learning_rate", -1.0),
        ("learning_rate", "much"),
        ("learning_rate", float("inf")),
        ("weight_decay", -0.1),
        ("weight_decay", "little"),
        ("depht", 3),
    ],
)
def test_impossible_settings_are_refused_before_learning(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match="groups" if name == "masking" else name):
        pretraining_of({name: value})
