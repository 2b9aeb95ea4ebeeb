"""How the public checkpoints name their tensors, and what these are called here.

A layout is a list of rules, tried in order; the first whose pattern fits the start of a name
rewrites it. A rule without a replacement says why the tensor is not needed. A name that no rule
fits is an error: nothing is ever dropped silently.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What happens to the tensors whose name begins with a pattern."""

    pattern: str
    """Regular expression for the beginning of the source's name."""
    target: str | None
    """What stands in its place here; None: not needed."""
    why: str = ""
    """Why it is not needed."""


@dataclass(frozen=True)
class Layout:
    """One kind of public checkpoint."""

    name: str
    """What it is, for the report."""
    marker: str
    """Beginning of a name that only this kind has."""
    rules: tuple[Rule, ...]
    """In the order in which they are tried."""
    parts: tuple[str, ...]
    """Parts of our network that it holds."""

    def rule_for(self, name: str) -> Rule | None:
        """The rule for one tensor, with our name for it as the target; None if there is none."""
        for rule in self.rules:
            match = re.match(rule.pattern, name)
            if match and rule.target is not None:
                return Rule(rule.pattern, match.expand(rule.target) + name[match.end() :])
            if match:
                return rule
        return None


BEIT3 = (
    Rule(r"mm_extractor\.beit3\.vision_embed\.mask_token", None, "BEiT-3's pre-training"),
    Rule(r"mm_extractor\.beit3\.", "text_sam.beit3."),
    Rule(r"text_hidden_fcs\.", "text_sam.text_hidden_fcs."),
)

SAM1 = (
    Rule(r"visual_model\.pixel_(mean|std)$", None, "constants"),
    Rule(r"visual_model\.(image_encoder|prompt_encoder|mask_decoder)\.", r"text_sam.\1."),
)

_TRUNK = r"visual_model\.image_encoder\.trunk\."
_BACKBONE = "text_sam.image_encoder.backbone."
_DECODER_LAYER = r"visual_model\.sam_mask_decoder\.transformer\.layers\.(\d+)\.mlp\.layers\."
_LAYER = r"text_sam.mask_decoder.transformer.layers.\1.mlp."
SAM2 = (
    Rule(r"visual_model\.pixel_(mean|std)$", None, "constants"),
    Rule(r"visual_model\.(memory_attention|memory_encoder)\.", None, "SAM 2's memory of a video"),
    Rule(r"visual_model\.(maskmem_tpos_enc|no_mem_pos_enc)$", None, "SAM 2's memory of a video"),
    Rule(r"visual_model\.(no_obj_ptr|no_obj_embed_spatial)$", None, "SAM 2's memory of a video"),
    Rule(
        r"visual_model\.(mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\.",
        None,
        "SAM 2's memory of a video",
    ),
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


def _inside(prefix: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules for names that begin with `prefix`."""
    return tuple(Rule(prefix + rule.pattern, rule.target, rule.why) for rule in rules)


def _text_towers(*patterns: str) -> tuple[Rule, ...]:
    return tuple(Rule(pattern, None, "the text tower and its loss") for pattern in patterns)


LAYOUTS: Sequence[Layout] = (
    Layout(
        "AV2T-SAM on SAM 2 (AVTSAM.state_dict())",
        "model.visual_model.sam_mask_decoder.",
        _inside(r"model\.", (*SAM2, *BEIT3)) + AV2T,
        ("projector", "adapter", "text_sam"),
    ),
    Layout(
        "AV2T-SAM on SAM (AVTSAM.state_dict())",
        "model.visual_model.mask_decoder.",
        _inside(r"model\.", (*SAM1, *BEIT3)) + AV2T,
        ("projector", "adapter", "text_sam"),
    ),
    Layout("EVF-SAM 2", "visual_model.sam_mask_decoder.", (*SAM2, *BEIT3), ("text_sam",)),
    Layout("EVF-SAM", "visual_model.mask_decoder.", (*SAM1, *BEIT3), ("text_sam",)),
    Layout(
        "LAION CLAP",
        "audio_branch.",
        (
            Rule(r"audio_branch\.head\.", None, "a classifier that no forward pass reads"),
            Rule(r"audio_branch\.", "clap.htsat."),
            Rule(r"audio_projection\.", "clap.projection."),
            Rule(r"audio_transform\.", None, "used in LAION's training only"),
            *_text_towers(r"text_(branch|projection|transform)\.", r"logit_scale_[at]$"),
        ),
        ("clap",),
    ),
    Layout(
        "Microsoft CLAP 2023",
        "audio_encoder.base.htsat.",
        (
            Rule(r"audio_encoder\.base\.htsat\.head\.", None, "a classifier that nothing reads"),
            Rule(r"audio_encoder\.base\.htsat\.", "clap.htsat."),
            Rule(r"audio_encoder\.projection\.", "clap.projection."),
            *_text_towers(r"caption_encoder\.", r"logit_scale$"),
        ),
        ("clap",),
    ),
    Layout(
        "OpenAI CLIP (open_clip)",
        "visual.",
        (
            Rule(r"visual\.", "clip.visual."),
            *_text_towers(
                r"(transformer|token_embedding|ln_final)\.",
                r"(positional_embedding|text_projection|logit_scale|logit_bias|attn_mask)$",
            ),
        ),
        ("clip",),
    ),
)


def recognise(names: Iterable[str]) -> Layout | None:
    """The layout whose marker some name begins with; the more special ones come first."""
    names = list(names)
    for layout in LAYOUTS:
        if any(name.startswith(layout.marker) for name in names):
            return layout
    return None
