"""The background discriminant on a made-up part, and its refusal where images do not split."""

from __future__ import annotations

import torch

from blemish.numeric.background import fit_background, foreground


def disc_on_background(count: int, seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Images `(20, 20, 16)` of a disc, and where it is."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    disc = (y - 10) ** 2 + (x - 10) ** 2 < 36
    return [torch.randn(20, 20, 16, generator=generator) + 4 * disc[..., None] for _ in range(count)], disc


def test_keeps_the_part_and_drops_most_of_the_rest() -> None:
    images, disc = disc_on_background(3, 0)
    discriminant = fit_background(images)
    assert discriminant is not None
    part = foreground(discriminant, disc_on_background(1, 1)[0][0][None])[0]
    assert part[disc].all()
    assert part[~disc].float().mean() < 0.5


def test_the_sign_does_not_matter() -> None:
    images, disc = disc_on_background(3, 0)
    discriminant = fit_background([-p for p in images])
    assert discriminant is not None
    assert foreground(discriminant, -images[0][None])[0][disc].all()


def test_a_texture_is_all_part() -> None:
    generator = torch.Generator().manual_seed(0)
    assert fit_background([torch.randn(20, 20, 16, generator=generator) for _ in range(3)]) is None


def test_one_odd_image_in_four_is_forgiven_two_are_not() -> None:
    images, _ = disc_on_background(4, 0)
    noise = torch.randn(20, 20, 16, generator=torch.Generator().manual_seed(9))
    assert fit_background([*images[:3], noise]) is not None
    assert fit_background([*images[:2], noise, noise]) is None
