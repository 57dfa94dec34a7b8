"""What the experiment about logical anomalies brings along, and what it says of rows."""

from __future__ import annotations

from pathlib import Path

from blemish.research.experiments.logical import Logical
from blemish.research.kits import KINDS


def test_it_brings_generated_kits(tmp_path: Path) -> None:
    (own,) = Logical().own_categories(tmp_path, ())
    assert {sample.defect for sample in own.test} == {"", *KINDS}
    assert Logical(generated=False).own_categories(tmp_path, ()) == ()


def test_the_verdict_names_each_kind_and_compares_over_all() -> None:
    values = {("count", "hybrid"): 0.5, ("count", "components"): 1.0, ("scratch", "hybrid"): 1.0}
    values |= {("scratch", "components"): 0.99}
    facts = {"dataset": "generated", "category": "kits", "shots": 16, "seed": 0, "learned": "generated/kits"}
    rows = [{**facts, "defect": d, "variant": v, "image_auroc": a} for (d, v), a in values.items()]
    sentences = Logical().verdict(rows).sentences
    assert sentences[0] == "kits, count: components 1.000, hybrid 0.500."
    assert sentences[1] == "kits, scratch: hybrid 1.000, components 0.990."
    assert "+0.245" in sentences[2]
    assert len(sentences) == 3
    titles = [chart.title for chart in Logical().charts(rows)]
    assert titles == ["kits, count: picture AUROC", "kits, scratch: picture AUROC"]
