"""The models that have names: what each is for, and where its weights are published.

Nothing here was fetched or measured by this project, except what is said of nano: sizes, licences
and file names are those that their publishers state, and what could not be verified is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it imports torch, which a list of names does not need
    from av2tsam_cli.model.config import ModelConfig

UNMEASURED = "not measured here"


@dataclass(frozen=True)
class NamedModel:
    """One entry of the registry."""

    name: str
    """What `--model` and `av2tsam models` call it; its file's stem too."""
    purpose: str
    """What it is for, in a few words."""
    licence: str
    """Licence of the weights, as their publisher states it."""
    parts: tuple[str, ...]
    """Parts of the network that its file holds; none for a tokenizer."""
    preset: str | None = None
    """The preset that has its sizes, where it is a whole network or the larger part of one."""
    repository: str | None = None
    """Repository on the Hugging Face hub; None where it comes with the package."""
    file: str | None = None
    """Path in the repository; None where the repository has to be asked."""
    revision: str | None = None
    """Commit to fetch; None for the newest."""
    size: int | None = None
    """Bytes to fetch, as published and rounded; None where nobody has said."""
    sha256: str | None = None
    """Of the published file (of the packaged one for nano), where it is known beforehand."""
    unverified: str = ""
    """What of the above could not be verified when this was written."""
    needs: tuple[str, ...] = ()
    """Names of the models that it does not work without."""
    suffix: str = ".safetensors"
    """Of the installed file."""
    config: ModelConfig | None = None
    """Its sizes, where no preset has them."""

    @property
    def installed_as(self) -> str:
        """Name of the installed file."""
        return self.name + self.suffix

    @property
    def origin(self) -> str:
        """What would be fetched from where, in words."""
        size = "" if self.size is None else f", {size_text(self.size)}"
        return f"{self.file or 'a weights file'} of {self.repository}{size}"


def size_text(count: int) -> str:
    """Bytes for people, in the decimal units that the hub uses: 2.63 GB."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count} bytes"


TOKENIZER = "beit3-tokenizer"
"""The tokenizer that text prompts of the large networks need."""

_HEARING = ("projector", "adapter", "text_sam")
_THEIR_FILES = (
    "which files its repository holds; the authors' page calls them pre-trained backbones, so the "
    "trained weights may not be among them"
)

_ALL = (
    NamedModel(
        name="nano",
        purpose="trying the tool out: sixteen drawn things and their synthesised sounds",
        licence="Apache-2.0",
        parts=("clip", "clap", *_HEARING),
        preset="nano",
        sha256="65ae769aef50356c27edf67bdc93ac1410157c723b2c87f1c86d0182bb35435e",
    ),
    NamedModel(
        name="evf-sam2",
        purpose="AV2T-SAM on SAM 2 (Hiera-L), the paper's main network",
        licence="none stated",
        parts=_HEARING,
        preset="evf-sam2",
        repository="Kyungbok/AV2T-SAM",
        unverified=_THEIR_FILES,
        needs=("clip-vit-b-32", "clap-microsoft", TOKENIZER),
    ),
    NamedModel(
        name="evf-sam",
        purpose="AV2T-SAM on SAM (ViT-H)",
        licence="none stated",
        parts=_HEARING,
        preset="evf-sam",
        repository="Kyungbok/AV2T-SAM",
        unverified=_THEIR_FILES,
        needs=("clip-vit-b-32", "clap-microsoft", TOKENIZER),
    ),
    NamedModel(
        name="evf-sam2-text",
        purpose="EVF-SAM 2: text prompts, and the frozen part that training starts from",
        licence="Apache-2.0",
        parts=("text_sam",),
        preset="evf-sam2",
        repository="YxZhang/evf-sam2-multitask",
        file="model.safetensors",
        size=3_150_000_000,
        unverified="file name and size (those of YxZhang/evf-sam2)",
        needs=(TOKENIZER,),
    ),
    NamedModel(
        name="evf-sam-text",
        purpose="EVF-SAM: text prompts, and the frozen part that training starts from",
        licence="Apache-2.0",
        parts=("text_sam",),
        preset="evf-sam",
        repository="YxZhang/evf-sam-multitask",
        file="pytorch_model.bin",
        size=2_630_000_000,
        needs=(TOKENIZER,),
    ),
    NamedModel(
        name="clap-laion",
        purpose="hears, 512 numbers a second: LAION CLAP",
        licence="CC0-1.0",
        parts=("clap",),
        repository="lukewys/laion_clap",
        file="630k-audioset-best.pt",
        size=1_860_000_000,
    ),
    NamedModel(
        name="clap-microsoft",
        purpose="hears, 1024 numbers a second: Microsoft CLAP 2023",
        licence="MS-PL",
        parts=("clap",),
        repository="microsoft/msclap",
        file="CLAP_weights_2023.pth",
        size=690_000_000,
    ),
    NamedModel(
        name="clip-vit-b-32",
        purpose="sees: OpenAI CLIP ViT-B/32",
        licence="MIT",
        parts=("clip",),
        repository="timm/vit_base_patch32_clip_224.openai",
        file="open_clip_model.safetensors",
        size=605_000_000,
        unverified="the licence (that of OpenAI's code)",
    ),
    NamedModel(
        name=TOKENIZER,
        purpose="tokenizer of text prompts for the large networks",
        licence="Apache-2.0",
        parts=(),
        repository="YxZhang/evf-sam-multitask",
        file="sentencepiece.bpe.model",
        unverified="file name and size",
        suffix=".spm",
    ),
)

MODELS: dict[str, NamedModel] = {model.name: model for model in _ALL}

HEARING: tuple[str, ...] = tuple(
    model.name for model in _ALL if "projector" in model.parts and model.repository
)
"""Whole networks that can be installed, best first."""

TEXT_PROMPTED: tuple[str, ...] = tuple(model.name for model in _ALL if model.parts == ("text_sam",))
"""SAMs that follow written phrases and hear nothing, best first."""
