"""Tiny networks with every part of the real ones."""

import re
import struct

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap import ClapConfig
from av2tsam_cli.embeddings.clip import ClipConfig
from av2tsam_cli.embeddings.text import BpeKind, TextConfig
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import Beit3Config, ModelConfig, Sam2Config, SamConfig

TINY_SAM = SamConfig(
    image_size=64,
    patch_size=8,
    dim=24,
    depth=3,
    heads=3,
    window_size=3,
    global_blocks=(1,),
    decoder_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=24,
    iou_head_dim=16,
)
TINY_SAM2 = Sam2Config(
    image_size=96,
    dim=8,
    heads=2,
    stages=(1, 2, 3, 1),
    global_blocks=(4,),
    windows=(6, 4, 4, 2),
    background=(7, 7),
    decoder_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=24,
    iou_head_dim=16,
)
TINY_CLAP = ClapConfig(
    embed_dim=10,
    rate_hz=8_000,
    mel_rate_hz=8_000,
    n_fft=256,
    hop=250,
    mel_bins=16,
    fmax_hz=4_000,
    clip_samples=8_000,
    spec_size=32,
    dim=8,
    depths=(2, 2),
    heads=(1, 2),
    window_size=4,
    classes=1,
)
TINY = ModelConfig(
    name="tiny",
    sam=TINY_SAM,
    beit3=Beit3Config(
        image_size=32, dim=16, heads=2, ffn_dim=24, depth=2, vocabulary_size=12, text_positions=16
    ),
    clip=ClipConfig(embed_dim=12, image_size=32, layers=1, width=16, head_width=8, patch_size=16),
    clap=TINY_CLAP,
    feature_dim=14,
    words=("<bos>", "<pad>", "<eos>", "<unk>", "the", "dog", "bell"),
)
TINY_CHECKPOINT = ModelConfig(
    name="tiny",
    sam=SamConfig(
        image_size=64,
        patch_size=8,
        dim=32,
        depth=2,
        heads=2,
        window_size=4,
        global_blocks=(1,),
        decoder_dim=32,
        decoder_heads=2,
        decoder_mlp_dim=32,
        iou_head_dim=16,
    ),
    beit3=Beit3Config(
        image_size=32,
        dim=32,
        heads=2,
        ffn_dim=32,
        depth=1,
        vocabulary_size=8,
        text_positions=8,
    ),
    clip=ClipConfig(embed_dim=16, image_size=32, layers=1, width=32, head_width=16, patch_size=16),
    clap=ClapConfig(
        embed_dim=16,
        rate_hz=8_000,
        mel_rate_hz=8_000,
        n_fft=256,
        hop=127,
        fmax_hz=4_000,
        clip_samples=8_000,
        spec_size=64,
        dim=16,
        depths=(1, 1),
        heads=(2, 2),
        window_size=4,
        classes=1,
    ),
    feature_dim=16,
    words=("<s>", "<pad>", "</s>", "<unk>", "the", "dog", "bell", "drum"),
)
"""The sizes of the `tiny_model` fixture, whose masks cover about half of a frame."""


def shake(module: nn.Module, seed: int = 0) -> None:
    """Give every weight a random value, so that nothing is zero or one by its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.5 / max(*parameter.shape[-1:], 1, 1) ** 0.5))


PIECES = ["<unk>", "<s>", "</s>", "▁the", "▁dog", "▁", "d", "o", "g"]


def message(field: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer, shorter than 128 bytes."""
    return bytes([field << 3 | 2, len(data)]) + data


def sentencepiece_model() -> bytes:
    """A unigram model of a few pieces, the earlier the likelier, as SentencePiece writes one."""
    model = b""
    for place, piece in enumerate(PIECES):
        score = bytes([2 << 3 | 5]) + struct.pack("<f", -float(place))
        model += message(1, message(1, piece.encode()) + score)
    return model + message(2, bytes([3 << 3, 1]))  # the trainer's options, which do not matter


TINY_TEXT = TextConfig(vocabulary_size=260, positions=96, dim=16, layers=2, heads=2)
"""The sizes of CLAP's text encoder with a `tiny_bpe`."""


def tiny_bpe(kind: BpeKind) -> bytes:
    """A `tokenizer.json` whose tokens are bytes, with the special tokens of RoBERTa or GPT-2."""
    specials = {"roberta": ["<s>", "<pad>", "</s>", "<unk>"], "gpt2": []}[kind]
    # In both, "!" is the first of the bytes.
    tokens = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    model = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, []))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.add_special_tokens(specials or ["<|endoftext|>"])
    return model.to_str().encode()


# From our names to the reference's, for a tiny network: the way back, written independently.
COMMON = (
    (r"^text_sam\.beit3\.", "model.mm_extractor.beit3."),
    (r"^text_sam\.text_hidden_fcs\.", "model.text_hidden_fcs."),
    (r"^adapter\.shared\.", "audio_prompt_generator.shared_mlp."),
    (r"^adapter\.blocks\.(\d+)\.", r"audio_prompt_generator.lightweight_mlp_\1."),
)
TO_SAM1 = (*COMMON, (r"^text_sam\.", "model.visual_model."))
TO_SAM2 = (
    *COMMON,
    (r"^text_sam\.image_encoder\.no_mem_embed", "model.visual_model.no_mem_embed"),
    (
        r"^text_sam\.image_encoder\.neck\.(\d)",
        r"model.visual_model.image_encoder.neck.convs.\1.conv",
    ),
    (r"^text_sam\.image_encoder\.backbone\.", "model.visual_model.image_encoder.trunk."),
    (r"trunk\.patch_embed\.projection\.", "trunk.patch_embed.proj."),
    (r"(trunk.*)layer_norm(\d)", r"\1norm\2"),
    (r"(trunk.*)mlp\.proj_in", r"\1mlp.layers.0"),
    (r"(trunk.*)mlp\.proj_out", r"\1mlp.layers.1"),
    (r"^text_sam\.mask_decoder\.(.*)mlp\.lin1", r"text_sam.mask_decoder.\1mlp.layers.0"),
    (r"^text_sam\.mask_decoder\.(.*)mlp\.lin2", r"text_sam.mask_decoder.\1mlp.layers.1"),
    (r"^text_sam\.(mask_decoder|prompt_encoder)\.", r"model.visual_model.sam_\1."),
)


def reference_state(model: Av2tSam) -> dict[str, Tensor]:
    """The network's weights as `AVTSAM.state_dict()` would name them, and what we do not need."""
    rules = TO_SAM2 if isinstance(model.config.sam, Sam2Config) else TO_SAM1
    state = {"model.mm_extractor.beit3.vision_embed.mask_token": torch.zeros(1, 1, 16)}
    if rules is TO_SAM2:
        state["model.visual_model.memory_encoder.pix_feat_proj.weight"] = torch.zeros(1)
    for name, tensor in model.state_dict().items():
        if name.startswith(("clip.", "clap.")):
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - rewritten step by step
        state[name] = tensor.contiguous()
    return state
