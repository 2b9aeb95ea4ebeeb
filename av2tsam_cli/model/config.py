"""The sizes of all parts, the named presets, and their JSON form."""

import json
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from av2tsam_cli.embeddings.clap import ClapConfig
from av2tsam_cli.embeddings.clip import ClipConfig
from av2tsam_cli.embeddings.text import TextConfig

ProjectorKind = Literal["mul", "clap", "clip"]


@dataclass(frozen=True)
class SamConfig:
    """SAM 1: a ViTDet image encoder and the mask decoder. The defaults are ViT-H."""

    kind: Literal["sam"] = "sam"
    """Distinguishes the two SAMs in a checkpoint."""
    image_size: int = 1024
    """Side of the square input in pixels."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    stem: Literal["patch", "conv"] = "patch"
    """`patch`: SAM's strided convolution. `conv`: a residual stem, for training from scratch."""
    high_res: bool = False
    """Whether the decoder also gets the finer maps of the `conv` stem, as in SAM 2."""
    dim: int = 1280
    """Width of the encoder."""
    depth: int = 32
    """Encoder blocks."""
    heads: int = 16
    """Attention heads per block."""
    mlp_ratio: float = 4.0
    """Width of a block's hidden layer relative to `dim`."""
    window_size: int = 14
    """Side of an attention window in patches."""
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    """Blocks that attend to the whole image."""
    decoder_dim: int = 256
    """Width C of image features, prompts and decoder."""
    decoder_depth: int = 2
    """Two-way blocks of the decoder."""
    decoder_heads: int = 8
    """Attention heads of the decoder."""
    decoder_mlp_dim: int = 2048
    """Width of the decoder's hidden layers."""
    iou_head_depth: int = 3
    """Layers of the head that predicts each mask's IoU."""
    iou_head_dim: int = 256
    """Width of that head."""
    mask_in_channels: int = 16
    """Channels of the mask prompt's convolutions, which are part of the weights but not used."""

    @property
    def feature_maps(self) -> int:
        """Number of maps that the image encoder returns."""
        return 3 if self.high_res else 1

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def block_dims(self) -> tuple[int, ...]:
        """Width of each encoder block's input."""
        return (self.dim,) * self.depth


@dataclass(frozen=True)
class Sam2Config:
    """SAM 2 for single images: a Hiera encoder with its FPN, and the mask decoder. Hiera-L."""

    kind: Literal["sam2"] = "sam2"
    """Distinguishes the two SAMs in a checkpoint."""
    image_size: int = 1024
    """Side of the square input in pixels."""
    dim: int = 144
    """Width of the first stage; doubles at each further stage."""
    heads: int = 2
    """Attention heads of the first stage; double at each further stage."""
    stages: tuple[int, ...] = (2, 6, 36, 4)
    """Blocks per stage. Each stage except the first starts by halving the grid."""
    global_blocks: tuple[int, ...] = (23, 33, 43)
    """Blocks that attend to the whole image."""
    windows: tuple[int, ...] = (8, 4, 16, 8)
    """Side of a stage's attention windows in patches; even, because the next stage halves it."""
    background: tuple[int, int] = (7, 7)
    """Grid of the background positions, which are interpolated to the image."""
    decoder_dim: int = 256
    """Width C of image features, prompts and decoder."""
    decoder_depth: int = 2
    """Two-way blocks of the decoder."""
    decoder_heads: int = 8
    """Attention heads of the decoder."""
    decoder_mlp_dim: int = 2048
    """Width of the decoder's hidden layers."""
    iou_head_depth: int = 3
    """Layers of the head that predicts each mask's IoU."""
    iou_head_dim: int = 256
    """Width of that head."""
    mask_in_channels: int = 16
    """Channels of the mask prompt's convolutions, which are part of the weights but not used."""

    @property
    def feature_maps(self) -> int:
        """Number of maps that the image encoder returns."""
        return 3

    @property
    def grid(self) -> int:
        """Cells along one side of the decoder's image embedding."""
        return self.image_size // 16

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Width of each stage."""
        return tuple(self.dim * 2**stage for stage in range(len(self.stages)))

    @property
    def block_dims(self) -> tuple[int, ...]:
        """Width of each block's input: a stage's first block has the previous stage's width."""
        widths: list[int] = []
        for stage, blocks in enumerate(self.stages):
            before = self.stage_dims[max(stage - 1, 0)]
            widths += [before] + [self.stage_dims[stage]] * (blocks - 1)
        return tuple(widths)


@dataclass(frozen=True)
class Beit3Config:
    """The multiway encoder. The defaults are BEiT-3 large."""

    image_size: int = 224
    """Side of the square input in pixels."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    dim: int = 1024
    """Width D."""
    heads: int = 16
    """Attention heads."""
    ffn_dim: int = 4096
    """Width of the feed-forward layers."""
    depth: int = 24
    """Layers."""
    vocabulary_size: int = 64_010
    """Word embeddings."""
    text_positions: int = 1024
    """Rows of the text's position table; the first two are unused."""

    @property
    def vision_tokens(self) -> int:
        """Number of image patches plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class ModelConfig:
    """One whole network."""

    name: str
    """Name of the preset, or of the preset that it is based on."""
    sam: SamConfig | Sam2Config
    """Image encoder and mask decoder."""
    beit3: Beit3Config
    """Encoder of image and text that produces the prompt."""
    clip: ClipConfig
    """Frame embeddings."""
    clap: ClapConfig
    """Window embeddings."""
    projector: ProjectorKind = "mul"
    """How the feature is computed: `mul` is the product of the CLAP and CLIP projections."""
    adapter: bool = True
    """Whether the feature is added to every block of the image encoder."""
    feature_dim: int = 512
    """Width F of the feature."""
    tokens: int = 3
    """Text tokens per feature."""
    source_size: int | None = None
    """If set, frames are first squashed to a square of this side by area averaging, and the inputs
    of SAM, BEiT-3 and CLIP are made from that, as from AVSBench's 224 x 224 frames. None: from the
    frame's own pixels."""
    text_mask: Literal["single", "best"] = "best"
    """Mask for text prompts: the single-mask output, or the best of masks 1 to 3."""
    words: tuple[str, ...] = field(default=(), repr=False)
    """Vocabulary of a small model, by token id; the first four are <bos>, <pad>, <eos> and <unk>.
    Empty: XLM-R's SentencePiece model."""

    def to_json(self) -> str:
        """Return the configuration as JSON, for a checkpoint's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Parse the text of `to_json`.

        Raises:
            ValueError: This version does not support the configuration.
        """
        try:
            values = json.loads(text)
            parts = {name: _PARTS[name](values.pop(name)) for name in _PARTS}
            config = cls(**parts, **_tuples(values))
        except (TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        _check_values(config)
        return config


MOST_BLOCKS = 256
"""Largest number of blocks, stages or layers; the largest network has 36 in a stage."""
LARGEST_SIZE = 8192
"""Largest width, or side of an image in pixels."""
LARGEST_COUNT = 2**20
"""Largest number of words, classes, samples or hertz."""
LARGEST_CLAP = 2**28
"""Most weights, or entries of attention masks, of CLAP; LAION's have 28 million and 0.3 million."""

_BLOCKS = frozenset({"depth", "depths", "layers", "stages", "decoder_depth", "iou_head_depth"})
_COUNTS = frozenset(
    {
        *("vocabulary_size", "classes", "clip_samples", "rate_hz", "mel_rate_hz", "fmin_hz"),
        *("fmax_hz", "hop"),
    }
)
_MAY_BE_0 = frozenset({"fmin_hz", "global_blocks"})


def _check_values(config: Any) -> None:
    """Check the types of all values, and that sizes are no larger than a network's can be.

    A checkpoint of a few bytes could else make its networks fill the memory when they are built.

    Raises:
        ValueError: A value is of another type, or too small or large.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if is_dataclass(value):
            _check_values(value)
        elif not _has_type(value, kind):
            raise ValueError(f"{name} is {str(value)[:50]!r}")
        for size in value if isinstance(value, tuple) else (value,):
            if isinstance(size, int | float) and not isinstance(size, bool):
                _check_size(name, size)
    if isinstance(config, ClapConfig):
        _check_clap(config)


def _has_type(value: object, kind: Any) -> bool:
    """Return whether a value has the type of a field: one of those that configurations use."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return any(_has_type(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        if not isinstance(value, tuple) or not (inner[-1] is Ellipsis or len(value) == len(inner)):
            return False
        return all(_has_type(each, inner[0]) for each in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind or (value is None and kind is NoneType)


def _check_size(name: str, size: float) -> None:
    most = MOST_BLOCKS if name in _BLOCKS else LARGEST_SIZE
    most = LARGEST_COUNT if name in _COUNTS else most
    if not (0 if name in _MAY_BE_0 else 1) <= size <= most:
        raise ValueError(f"{name} is {str(size)[:20]}, not 1 to {most}")


def _check_clap(config: ClapConfig) -> None:
    """Check the product of sizes, as HTSAT is built with memory of its own."""
    widths = [config.dim << stage for stage in range(len(config.depths))]
    weights = sum(12 * depth * width**2 for depth, width in zip(config.depths, widths, strict=True))
    spectrogram = config.n_fft**2
    masks = (config.spec_size // config.patch_size * config.window_size) ** 2
    if max(weights, spectrogram, masks) > LARGEST_CLAP or len(widths) > MOST_BLOCKS:
        raise ValueError("the sizes of its CLAP are too large")


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Convert lists, which stand for tuples in JSON, back to tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _with_text(values: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of a CLAP or CLIP; files of earlier versions have no text encoder."""
    text = values.pop("text", None)
    return {**_tuples(values), "text": text and TextConfig(**text)}


def _sam(values: dict[str, Any]) -> SamConfig | Sam2Config:
    kind = Sam2Config if values["kind"] == "sam2" else SamConfig
    return kind(**_tuples(values))


_PARTS: dict[str, Any] = {
    "sam": _sam,
    "beit3": lambda values: Beit3Config(**_tuples(values)),
    "clip": lambda values: ClipConfig(**_with_text(values)),
    "clap": lambda values: ClapConfig(**_with_text(values)),
}

LAION_CLAP = ClapConfig(
    text=TextConfig(vocabulary_size=50_265, positions=514, dim=768, layers=12, heads=12)
)
MICROSOFT_CLAP = ClapConfig(
    kind="microsoft",
    embed_dim=1024,
    rate_hz=44_100,
    mel_rate_hz=32_000,
    hop=320,
    clip_samples=44_100,
    text=TextConfig(vocabulary_size=50_257, positions=1024, dim=768, layers=12, heads=12),
)
CLIP_VIT_B_32 = ClipConfig(
    text=TextConfig(vocabulary_size=49_408, positions=77, dim=512, layers=12, heads=8)
)

NANO = ModelConfig(
    name="nano",
    sam=SamConfig(
        image_size=128,
        patch_size=8,
        stem="conv",
        high_res=True,
        dim=128,
        depth=4,
        heads=4,
        window_size=8,
        global_blocks=(1, 3),
        decoder_dim=128,
        decoder_heads=4,
        decoder_mlp_dim=256,
        iou_head_dim=128,
    ),
    beit3=Beit3Config(
        image_size=96, dim=128, heads=4, ffn_dim=256, depth=3, vocabulary_size=64, text_positions=32
    ),
    clip=ClipConfig(embed_dim=128, image_size=128, layers=(1, 2, 2, 1), width=16, patch_size=None),
    # With a hop of 252 samples at 16 kHz, a second has exactly 64 spectrogram frames.
    clap=ClapConfig(
        embed_dim=128,
        rate_hz=16_000,
        mel_rate_hz=16_000,
        n_fft=512,
        hop=252,
        fmax_hz=8_000,
        clip_samples=16_000,
        spec_size=64,
        stem="conv",
        dim=48,
        depths=(2, 2, 4),
        heads=(2, 4, 8),
        window_size=4,
        classes=1,
    ),
    feature_dim=128,
    source_size=128,
)

EVF_SAM = ModelConfig(
    name="evf-sam",
    sam=SamConfig(),
    beit3=Beit3Config(),
    clip=CLIP_VIT_B_32,
    clap=MICROSOFT_CLAP,
    text_mask="single",
)
EVF_SAM2 = replace(EVF_SAM, name="evf-sam2", sam=Sam2Config(), text_mask="best")
EVF_SAM2_TINY = replace(
    EVF_SAM2,
    name="evf-sam2-tiny",
    sam=Sam2Config(
        dim=96, heads=1, stages=(1, 2, 7, 2), global_blocks=(5, 7, 9), windows=(8, 4, 14, 7)
    ),
)

PRESETS: dict[str, ModelConfig] = {
    config.name: config for config in (NANO, EVF_SAM, EVF_SAM2, EVF_SAM2_TINY)
}
