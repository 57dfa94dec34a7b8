"""Gates are those of brute force, and the adaptor is its published equations."""

from __future__ import annotations

import torch

from blemish.detectors.rgb3d.octa import OCTA, MixtureOfExperts, top_k_gates
from blemish.numeric.training import seeded


def test_gates_are_those_of_brute_force() -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    for k in (1, 2, 5):
        gates = top_k_gates(logits, k)
        for row, own in zip(logits.tolist(), gates, strict=True):
            chosen = sorted(range(5), key=lambda i, row=row: -row[i])[:k]
            total = sum(float(torch.tensor(row[i]).exp()) for i in chosen)
            expected = [float(torch.tensor(row[i]).exp()) / total if i in chosen else 0.0 for i in range(5)]
            torch.testing.assert_close(own, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_a_mixture_is_the_gated_sum_of_the_chosen_experts() -> None:
    """Equation (5), one row and one expert at a time."""
    with seeded(0):
        mixture = MixtureOfExperts(6, experts=4, top_k=2)
        rows = torch.randn(3, 6)
    outputs = mixture(rows)
    for row, output in zip(rows, outputs, strict=True):
        logits = mixture.gate(row)
        best = logits.topk(2).indices
        weights = logits[best].softmax(0)
        expected = sum(w * mixture.experts[int(i)](row) for w, i in zip(weights, best, strict=True))
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


def test_the_anchor_is_equations_6_to_8() -> None:
    with seeded(0):
        adaptor, sentences = OCTA(6).eval(), torch.randn(5, 6)
    text = adaptor.experts(sentences)
    prototype = adaptor.prototype
    logits = (prototype @ adaptor.query.weight.T) @ (text @ adaptor.key.weight.T).T / 6**0.5  # (1, 5)
    attended = logits.softmax(-1) @ (text @ adaptor.value.weight.T)
    adapted = adaptor.mlp(prototype + attended)
    expected = adaptor.norm(adapted + adaptor.feed_forward(adapted))[0]
    torch.testing.assert_close(adaptor(sentences[None])[0], expected, rtol=1e-5, atol=1e-5)


def test_each_category_has_an_anchor_of_its_own() -> None:
    with seeded(0):
        adaptor, sentences = OCTA(6).eval(), torch.randn(3, 5, 6)
    one_by_one = torch.cat([adaptor(own[None]) for own in sentences])
    torch.testing.assert_close(adaptor(sentences), one_by_one, rtol=1e-5, atol=1e-6)


def test_the_order_of_sentences_does_not_matter() -> None:
    with seeded(0):
        adaptor, sentences = OCTA(6).eval(), torch.randn(2, 5, 6)
    torch.testing.assert_close(adaptor(sentences), adaptor(sentences.flip(1)), rtol=1e-5, atol=1e-6)
