"""How the published checkpoints name their tensors, and this tool's names for them.

A layout is a list of rules, tried in order. The first rule whose pattern matches the start of a
name replaces what it matched, or skips the tensor and gives the reason. A name that no rule matches
is an error: no tensor is dropped silently.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rule:
    """Rename or skip the tensors whose name begins with a pattern."""

    pattern: str
    """Regular expression for the start of the published name."""
    replacement: str | None
    """What replaces the match; None skips the tensor."""
    reason: str = ""
    """Why the tensor is skipped."""

    def rename(self, name: str) -> str | None:
        """Return this tool's name for a tensor that the pattern matches; None skips it."""
        if self.replacement is None:
            return None
        return re.sub(self.pattern, self.replacement, name, count=1)


@dataclass(frozen=True)
class Layout:
    """One kind of published checkpoint."""

    name: str
    """Name shown in the report."""
    marker: str
    """Start of a tensor name that only this kind contains."""
    rules: tuple[Rule, ...]
    """Rules in the order in which they are tried."""
    parts: tuple[str, ...]
    """Parts of the network that it contains."""

    def rule_for(self, name: str) -> Rule | None:
        """Return the first rule that matches a tensor's name, or None."""
        return next((rule for rule in self.rules if re.match(rule.pattern, name)), None)


BEIT3 = (
    Rule(
        r"mm_extractor\.beit3\.vision_embed\.mask_token", None, "only used in BEiT-3's pre-training"
    ),
    Rule(r"mm_extractor\.beit3\.", "text_sam.beit3."),
    Rule(r"text_hidden_fcs\.", "text_sam.text_hidden_fcs."),
)

SAM1 = (
    Rule(r"visual_model\.pixel_(mean|std)$", None, "constants of the image normalisation"),
    Rule(r"visual_model\.(image_encoder|prompt_encoder|mask_decoder)\.", r"text_sam.\1."),
)

_TRUNK = r"visual_model\.image_encoder\.trunk\."
_BACKBONE = "text_sam.image_encoder.backbone."
_DECODER_LAYER = r"visual_model\.sam_mask_decoder\.transformer\.layers\.(\d+)\.mlp\.layers\."
_LAYER = r"text_sam.mask_decoder.transformer.layers.\1.mlp."
SAM2 = (
    Rule(r"visual_model\.pixel_(mean|std)$", None, "constants of the image normalisation"),
    Rule(r"visual_model\.(memory_attention|memory_encoder)\.", r"memory.\1."),
    Rule(r"visual_model\.(maskmem_tpos_enc|no_mem_pos_enc)$", r"memory.\1"),
    Rule(r"visual_model\.(no_obj_ptr|no_obj_embed_spatial)$", r"memory.\1"),
    Rule(r"visual_model\.(mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\.", r"memory.\1."),
    Rule(r"visual_model\.no_mem_embed$", "text_sam.image_encoder.no_mem_embed"),
    Rule(_TRUNK + r"patch_embed\.proj\.", _BACKBONE + "patch_embed.projection."),
    Rule(_TRUNK + r"blocks\.(\d+)\.norm(\d)\.", _BACKBONE + r"blocks.\1.layer_norm\2."),
    Rule(_TRUNK + r"blocks\.(\d+)\.mlp\.layers\.0\.", _BACKBONE + r"blocks.\1.mlp.proj_in."),
    Rule(_TRUNK + r"blocks\.(\d+)\.mlp\.layers\.1\.", _BACKBONE + r"blocks.\1.mlp.proj_out."),
    Rule(_TRUNK, _BACKBONE),
    Rule(
        r"visual_model\.image_encoder\.neck\.convs\.(\d+)\.conv\.",
        r"text_sam.image_encoder.neck.\1.",
    ),
    Rule(_DECODER_LAYER + r"0\.", _LAYER + "lin1."),
    Rule(_DECODER_LAYER + r"1\.", _LAYER + "lin2."),
    Rule(r"visual_model\.sam_(prompt_encoder|mask_decoder)\.", r"text_sam.\1."),
)

AV2T = (
    Rule(r"projector\.", "projector."),
    Rule(r"audio_prompt_generator\.lightweight_mlp_(\d+)\.", r"adapter.blocks.\1."),
    Rule(r"audio_prompt_generator\.shared_mlp\.", "adapter.shared."),
)


def _prefixed(prefix: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the same rules for names that begin with a prefix."""
    return tuple(replace(rule, pattern=prefix + rule.pattern) for rule in rules)


_COMPUTED = "positions and attention masks, which are computed"

# More specific layouts come first.
LAYOUTS: Sequence[Layout] = (
    Layout(
        "AV2T-SAM on SAM 2 (AVTSAM.state_dict())",
        "model.visual_model.sam_mask_decoder.",
        _prefixed(r"model\.", (*SAM2, *BEIT3)) + AV2T,
        ("projector", "adapter", "text_sam"),
    ),
    Layout(
        "AV2T-SAM on SAM (AVTSAM.state_dict())",
        "model.visual_model.mask_decoder.",
        _prefixed(r"model\.", (*SAM1, *BEIT3)) + AV2T,
        ("projector", "adapter", "text_sam"),
    ),
    Layout("EVF-SAM 2", "visual_model.sam_mask_decoder.", (*SAM2, *BEIT3), ("text_sam",)),
    Layout("EVF-SAM", "visual_model.mask_decoder.", (*SAM1, *BEIT3), ("text_sam",)),
    Layout(
        "LAION CLAP",
        "audio_branch.",
        (
            Rule(r"audio_branch\.head\.", None, "unused classifier"),
            Rule(r"audio_branch\.", "clap.htsat."),
            Rule(r"audio_projection\.", "clap.projection."),
            Rule(r"(audio|text)_transform\.", None, "only used in LAION's training"),
            Rule(r"text_branch\.embeddings\.(position_ids|token_type_ids)$", None, _COMPUTED),
            Rule(r"text_branch\.", "clap_text.encoder."),
            Rule(r"text_projection\.", "clap_text.projection."),
            Rule(r"logit_scale_a$", "clap_text.logit_scale"),
            Rule(r"logit_scale_t$", "clap_text.logit_scale_text"),
        ),
        ("clap", "clap_text"),
    ),
    Layout(
        "Microsoft CLAP 2023",
        "audio_encoder.base.htsat.",
        (
            Rule(r"audio_encoder\.base\.htsat\.head\.", None, "unused classifier"),
            Rule(r"audio_encoder\.base\.htsat\.", "clap.htsat."),
            Rule(r"audio_encoder\.projection\.", "clap.projection."),
            Rule(r"caption_encoder\.base\.h\.\d+\.attn\.(masked_)?bias$", None, _COMPUTED),
            Rule(r"caption_encoder\.base\.", "clap_text.encoder."),
            Rule(r"caption_encoder\.projection\.", "clap_text.projection."),
            Rule(r"logit_scale$", "clap_text.logit_scale"),
        ),
        ("clap", "clap_text"),
    ),
    Layout(
        "OpenAI CLIP (open_clip)",
        "visual.",
        (
            Rule(r"visual\.", "clip.visual."),
            Rule(r"attn_mask$", None, _COMPUTED),
            Rule(r"(transformer|token_embedding|ln_final)\.", r"clip_text.encoder.\1."),
            Rule(r"(positional_embedding|text_projection)$", r"clip_text.encoder.\1"),
            Rule(r"logit_scale$", "clip_text.logit_scale"),
        ),
        ("clip", "clip_text"),
    ),
)


def recognise(names: Iterable[str]) -> Layout | None:
    """Return the first layout whose marker starts one of the names, or None."""
    names = tuple(names)
    for layout in LAYOUTS:
        if any(name.startswith(layout.marker) for name in names):
            return layout
    return None
