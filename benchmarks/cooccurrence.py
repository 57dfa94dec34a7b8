"""Which detectors see that parts of the right texture stand in the wrong number or pairing?

    python benchmarks/cooccurrence.py                       # sa-patchcore beside patchcore, three generated sets
    python benchmarks/cooccurrence.py --detectors sa-patchcore --seeds 0

Each set comes from blemish.research.cooccurrence: 30 good images to learn from, 20 good ones and 20 of each kind of
defect to test on. Every detector has its registered settings and the same encoder. The row `all` of a set joins both
kinds of defect. Thresholds are not learned, which the AUROC does not need. Writes benchmarks/results/cooccurrence.csv.
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path

import numpy as np

from blemish import encoders
from blemish.detectors import factory
from blemish.metrics import auroc
from blemish.model.feature_loader import FeatureLoader
from blemish.preprocessing.framing import build_framing, encoder_input_of
from blemish.research.cooccurrence import KINDS, NAME, cooccurrence
from blemish.scoring.detector_scores import detector_scores

RESULTS = Path(__file__).parent / "results" / "cooccurrence.csv"
HEAD = ("seed", "kind", "detector", "image_auroc")


def measured(name: str, encoder_name: str, seed: int) -> list[dict[str, object]]:
    """One row a kind of defect, and one for both."""
    category = cooccurrence(seed)
    learned, tested = ([np.asarray(s.image) for s in samples] for samples in (category.train, category.test))
    detector = factory.build(name, offered={"seed": seed})
    needs = detector.needs.limited_to_max_copies(len(learned))
    encoder = encoders.build(encoder_name, role=needs.layers, device="cpu")
    framing = build_framing(
        needs.framing, image_size=needs.image_size, multiple=encoder.size_multiple, square=needs.square
    ).fit(learned)
    prepare = partial(encoder_input_of, framing)
    names = [NAME] * len(learned)
    poses = [framing.poses] * len(learned)
    detector.fit(FeatureLoader.of(learned, encoder, needs, prepare, names, seed, poses=poses))
    encoded = (encoder.encode(prepare(image)[None]).with_categories([NAME]) for image in tested)
    scores = np.array([detector_scores(detector, features)[0][0] for features in encoded])
    kinds = np.array([sample.defect for sample in category.test])
    rows = []
    for kind in (*KINDS, "all"):
        chosen = (kinds == "") | (kinds == kind) | (kind == "all")
        value = auroc(scores[chosen], (kinds[chosen] != "").astype(int))
        rows.append(dict(zip(HEAD, (seed, kind, name, f"{value:.4f}"), strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=["patchcore", "sa-patchcore"])
    parser.add_argument("--encoder", default="efficientnet-lite2")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, lineterminator="\n")
        table.writeheader()
        for seed in arguments.seeds:
            for name in arguments.detectors:
                for row in measured(name, arguments.encoder, seed):
                    table.writerow(row)
                    file.flush()
                    print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
