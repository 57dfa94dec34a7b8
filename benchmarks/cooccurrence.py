"""Which detectors see that parts of the right texture stand in the wrong number, place or pairing?

    python benchmarks/cooccurrence.py                       # sa-patchcore beside patchcore, three generated sets
    python benchmarks/cooccurrence.py --detectors sa-patchcore --seeds 0
    python benchmarks/cooccurrence.py --set kits --detectors hybrid components    # counts, missing, extra, place, pair

Each set comes from blemish.research.cooccurrence or blemish.research.kits: 30 good images to learn from, 20 good ones
and 20 of each kind of defect to test on. Every detector has its registered settings and, unless one is given, the
encoder that suits it. The row `all` of a set joins all kinds of defect, `logical` those of kits but its scratches.
Thresholds are not learned, which the AUROC does not need. Writes benchmarks/results/cooccurrence.csv, or kits.csv.
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path

import numpy as np

from blemish import encoders
from blemish.detectors import factory
from blemish.encoders.availability import best_available
from blemish.metrics import auroc
from blemish.model.feature_loader import FeatureLoader
from blemish.model.fitting import filled_input_of
from blemish.preprocessing.framing import build_framing
from blemish.registry import DETECTORS
from blemish.research.cooccurrence import cooccurrence
from blemish.research.kits import STRUCTURAL, kits
from blemish.scoring.detector_scores import detector_scores

RESULTS = Path(__file__).parent / "results"
SETS = {"cooccurrence": cooccurrence, "kits": kits}
HEAD = ("seed", "kind", "detector", "image_auroc")


def measured(of: str, name: str, encoder_name: str | None, seed: int) -> list[dict[str, object]]:
    """One row a kind of defect, and those for several."""
    category = SETS[of](seed)
    encoder_name = encoder_name or best_available(DETECTORS[name].encoders)[0]
    learned, tested = ([np.asarray(s.image) for s in samples] for samples in (category.train, category.test))
    detector = factory.build(name, offered={"seed": seed})
    needs = detector.needs.limited_to_max_copies(len(learned))
    encoder = encoders.build(encoder_name, role=needs.layers, device="cpu")
    framing = build_framing(
        needs.framing, image_size=needs.image_size, multiple=encoder.size_multiple, square=needs.square
    ).fit(learned)
    prepare = partial(filled_input_of, framing, None)
    names = [of] * len(learned)
    poses = [framing.poses] * len(learned)
    detector.fit(FeatureLoader.of(learned, encoder, needs, prepare, names, seed, poses=poses))
    encoded = (encoder.encode(prepare(image)[None]).with_categories([of]) for image in tested)
    scores = np.array([detector_scores(detector, features)[0][0] for features in encoded])
    kinds = np.array([sample.defect for sample in category.test])
    rows = []
    for kind in (*dict.fromkeys(kinds[kinds != ""].tolist()), *(("logical",) if of == "kits" else ()), "all"):
        is_joined = (kind == "all") | ((kind == "logical") & ~np.isin(kinds, STRUCTURAL))  # (n,)
        chosen = (kinds == "") | (kinds == kind) | is_joined
        value = auroc(scores[chosen], (kinds[chosen] != "").astype(int))
        rows.append(dict(zip(HEAD, (seed, kind, name, f"{value:.4f}"), strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=["patchcore", "sa-patchcore"])
    parser.add_argument("--set", choices=SETS, default="cooccurrence")
    parser.add_argument("--encoder", default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("-o", "--output", type=Path, default=None)
    arguments = parser.parse_args()
    output = arguments.output or RESULTS / f"{arguments.set}.csv"
    with output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, lineterminator="\n")
        table.writeheader()
        for seed in arguments.seeds:
            for name in arguments.detectors:
                for row in measured(arguments.set, name, arguments.encoder, seed):
                    table.writerow(row)
                    file.flush()
                    print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
