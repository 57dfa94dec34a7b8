"""A sentence about a region by a small vision-language model here, kept only where it agrees with the numbers.

Any model that transformers loads as AutoModelForImageTextToText with its processor: SmolVLM, Qwen3-VL and others. It is
given the region's crop, the matched good crop and what was measured; scoring/sentence_checks.py decides on what it
writes. It is loaded when the first region is described, never downloaded, and never needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from blemish.encoders.availability import hub_snapshot
from blemish.encoders.image.hub import weight_files
from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.precision import resolve_device
from blemish.errors import MissingPackageError, SettingsError, WeightsError
from blemish.scoring.sentence_checks import refusal
from blemish.scoring.sentences import phrases_of
from blemish.types import Attributes, CropPair
from blemish.utils.paths import expanded

MOST_TOKENS = 64  # of a sentence; bounds the time. 25 words are about 35 tokens
SIDE = 224  # pixels of a crop's longer side, at least
ASKED = (
    "The first picture shows a place on a product that may be defective, the second the same place on a good one. "
    "Measured: {facts}. Say in one sentence of at most 20 words, in {language}, how the first differs from the second. "
    "Do not contradict what was measured."
)


class Writer(Protocol):
    """Writes about two crops: `found`, and its matched `good` one."""

    name: str

    def write(self, pair: CropPair, prompt: str) -> str:
        """What it says, as it says it."""
        ...


class Describer:
    """A `writer`'s sentences in one language, where they pass the checks."""

    def __init__(self, writer: Writer, language: str) -> None:
        self.writer, self.language = writer, language

    def sentence(self, pair: CropPair, found: Attributes, template: str) -> str:
        """One sentence, or "" where it was refused; `template` is what the rules say of the region."""
        asked = ASKED.format(facts=template, language=phrases_of(self.language)["language"])
        said = " ".join(self.writer.write(pair, asked).split()).strip("\"' ")
        if refusal(said, found, self.language):
            return ""
        return said[:1].upper() + said[1:].rstrip(".")


class LocalVlm:
    """A vision-language model in a folder, or of a hub id in the local cache; loaded at the first sentence.

    Raises WeightsError where there is no such folder, SettingsError for a model that takes no images.
    """

    def __init__(self, source: str | Path, device: str = "cpu") -> None:
        self.name, self.device = str(source), resolve_device(device)
        self.folder = find_vlm(source)
        self._loaded: tuple[Any, Any] | None = None
        self._lock = Lock()  # tokenizers are not made for several threads, and it is to be loaded once

    def write(self, pair: CropPair, prompt: str) -> str:
        """Greedy, so that the same crops give the same words; one thread at a time.

        Raises MissingPackageError, WeightsError, SettingsError for a model that cannot take two pictures.
        """
        with self._lock:
            model, processor = self._load()
            try:
                return self._written(model, processor, pair, prompt)
            except Exception as error:  # every kind of model refuses what it is not made for in its own way
                raise SettingsError(
                    "a vision-language model that takes two pictures and a question",
                    f"{self.name!r}: {type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}",
                    "name another, or leave --vlm out: regions are described without it, too",
                ) from error

    def _written(self, model: Any, processor: Any, pair: CropPair, prompt: str) -> str:
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        images = [enlarged(pair.found), enlarged(pair.good)]
        inputs = processor(text=[text], images=[images], return_tensors="pt").to(self.device)
        with torch.inference_mode():
            tokens = model.generate(
                **inputs,
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        written: str = processor.batch_decode(new, skip_special_tokens=True)[0]
        return written

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            processor = read_processor(self.folder)
            self._loaded = read_pretrained(self.folder, _speaking_class).to(self.device), processor
        return self._loaded


def find_vlm(source: str | Path) -> Path:
    """The folder of a vision-language model; nothing is downloaded. Raises WeightsError, SettingsError."""
    given = expanded(source)
    folder = given if given.is_dir() else hub_snapshot(str(source))
    if folder is None:
        raise WeightsError(
            "the folder of a vision-language model, or the id of one in the local hub cache",
            repr(str(source)),
            f"run: hf download {source}; or leave --vlm out: regions are described without it, too",
        )
    weight_files(folder)  # raises where they are missing
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"a readable config.json in {folder}", repr(error), "download it again") from error
    if kind not in KNOWN:
        raise SettingsError(
            "a model that takes pictures and writes text, such as SmolVLM or Qwen3-VL",
            f"{kind!r}, which takes none or writes none",
            "name another",
        )
    return folder


def read_processor(folder: Path) -> Any:
    """The processor in a model folder. Raises MissingPackageError where it needs one, WeightsError if damaged."""
    import transformers

    try:
        loader: Any = transformers.AutoProcessor
        processor = loader.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise MissingPackageError(
            "the packages that the vision-language model's processor needs",
            str(error).strip().splitlines()[0],
            "run: pip install 'blemish[vlm]'",
        ) from error
    except Exception as error:  # a damaged file surfaces as one of many kinds of error
        raise WeightsError(
            f"the processor of a vision-language model in {folder}",
            f"{type(error).__name__}: {error}",
            "download it all",
        ) from error
    if not getattr(processor, "chat_template", None):
        raise WeightsError(
            f"a processor with a chat template in {folder}", "none", "give a model that is tuned to follow instructions"
        )
    return processor


def enlarged(crop: np.ndarray) -> Image.Image:
    """A crop `(h, w, 3)` whose longer side is at least `SIDE` pixels."""
    scale = max(1.0, SIDE / max(crop.shape[:2]))
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    return Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC)


def _speaking_class(config: Any) -> tuple[Any, Any]:
    import transformers

    return transformers.AutoModelForImageTextToText, config
