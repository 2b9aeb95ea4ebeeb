"""Compare the networks with recorded outputs of the reference.

`python benchmarks/parity.py DIR` runs every case under DIR and prints one JSON line for each:
`case`, `ok` and, for every recorded output, the largest absolute difference and the tolerance. The
exit status is 0 only if all cases pass. Weights are converted in the same way as users'
checkpoints; sizes come from each case's config.json.
"""

import argparse
import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from av2tsam_cli.embeddings.clap import ClapConfig, ClapEmbedder, run_stage
from av2tsam_cli.embeddings.clip import ClipConfig, ClipEmbedder
from av2tsam_cli.embeddings.resample import resize
from av2tsam_cli.embeddings.segments import reference_segments, sinc_resample
from av2tsam_cli.embeddings.spectrogram import fourier_kernels
from av2tsam_cli.evaluation.metrics import video_f_score, video_iou
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.convert import convert
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.config import Beit3Config, ModelConfig, Sam2Config, SamConfig
from av2tsam_cli.model.preprocess import beit_image, longest_side, sam_image
from av2tsam_cli.model.sam import MaskPrediction, best_mask, single_mask
from av2tsam_cli.training.losses import mask_loss, soft_iou_loss

Outputs = dict[str, Tensor]

RELATIVE_TOLERANCE = 1e-4
"""Relative to the standard deviation of the recorded output."""
NOISE_FACTOR = 10.0
"""Relative to the recorded difference between float32 and float64, if that gives more."""


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    folder: Path
    io: Mapping[str, Tensor]
    config: Mapping[str, Any]
    values: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Case":
        """Read the files of a case; missing files are empty."""
        return cls(
            folder=folder,
            io=load_file(folder / "io.safetensors"),
            config=_json(folder / "config.json"),
            values=_json(folder / "values.json"),
        )

    def noise(self, name: str) -> float:
        """Return the largest recorded difference between float32 and float64 for an output."""
        recorded = _json(self.folder / "noise_floor.json").get("per_output", {})
        return float(recorded.get(name, {}).get("max_abs_diff_vs_fp64", 0.0))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


# --- networks ------------------------------------------------------------------------------------


def model_config(sizes: Mapping[str, Any]) -> ModelConfig:
    """Return the case's sizes as a configuration; sizes it does not name are unused."""
    return ModelConfig(
        name="fixture",
        sam=_sam_config(sizes),
        beit3=Beit3Config(
            image_size=sizes["beit_img"],
            patch_size=sizes["beit_patch"],
            dim=sizes["beit_dim"],
            heads=sizes["beit_heads"],
            ffn_dim=sizes["beit_ffn"],
            depth=sizes["beit_layers"],
            vocabulary_size=sizes["beit_vocab"],
            text_positions=sizes["beit_max_text_pos"],
        ),
        clip=ClipConfig(embed_dim=sizes.get("clip_dim", 512), layers=1),
        clap=ClapConfig(embed_dim=sizes.get("clap_dim", 1024)),
        projector=sizes.get("projector_type", "mul"),
        adapter=sizes.get("use_adapter", False),
        feature_dim=sizes.get("common_dim", 512),
    )


def _sam_config(sizes: Mapping[str, Any]) -> SamConfig | Sam2Config:
    decoder = {
        "image_size": sizes["img_size"],
        "decoder_dim": sizes["dec_dim"],
        "decoder_depth": sizes["dec_depth"],
        "decoder_heads": sizes["dec_heads"],
        "decoder_mlp_dim": sizes["dec_mlp_dim"],
        "iou_head_depth": sizes["iou_head_depth"],
        "iou_head_dim": sizes["iou_head_hidden"],
        "mask_in_channels": sizes["mask_in_chans"],
    }
    if sizes["variant"] == "evf_sam":
        return SamConfig(
            **decoder,
            patch_size=sizes["vit_patch"],
            dim=sizes["vit_dim"],
            depth=sizes["vit_depth"],
            heads=sizes["vit_heads"],
            mlp_ratio=sizes["vit_mlp_ratio"],
            window_size=sizes["vit_window"],
            global_blocks=tuple(sizes["vit_global_attn"]),
        )
    return Sam2Config(
        **decoder,
        dim=sizes["hiera_dim"],
        heads=sizes["hiera_heads"],
        stages=tuple(sizes["hiera_stages"]),
        global_blocks=tuple(sizes["hiera_global_att"]),
        background=tuple(sizes["hiera_bkg_pos"]),
        windows=tuple(sizes["hiera_window_spec"]),
    )


def load(weights: Path, config: ModelConfig, parts: tuple[str, ...]) -> Av2tSam:
    """Convert the weights of a case and load the result."""
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "converted.safetensors"
        convert(weights, converted, config=config)
        return load_network(converted, dtype=torch.float32, parts=parts)


def thinned(maps: Tensor, *, height_dim: int) -> Tensor:
    """Every s-th row and column, s = max(1, H // 16), as the fixtures keep them."""
    step = max(1, maps.shape[height_dim] // 16)
    rows = torch.arange(0, maps.shape[height_dim], step)
    columns = torch.arange(0, maps.shape[height_dim + 1], step)
    return maps.index_select(height_dim, rows).index_select(height_dim + 1, columns)


def run_av2t(case: Case) -> Outputs:
    """Run the whole network, from CLIP and CLAP embeddings to masks."""
    sizes = case.config["config"]
    model = load(
        case.folder / "weights.safetensors",
        model_config(sizes),
        ("projector", "adapter", "text_sam") if sizes["use_adapter"] else ("projector", "text_sam"),
    )
    projection = model.projector(
        case.io["inputs.clip_embeddings"].float(), case.io["inputs.clap_embeddings"].float()
    )
    feature = projection.feature.flatten(0, 1)
    tokens = projection.tokens.flatten(0, 1)
    sam_images = case.io["inputs.images_sam"].float().flatten(0, 1)
    beit_images = case.io["inputs.images_beit"].float().flatten(0, 1)
    vectors = model.adapter(feature) if model.adapter is not None else None

    out: Outputs = {"projector_features": projection.feature, "text_embeddings": tokens}
    out |= {f"adapter_prompts.{n:02}": vector for n, vector in enumerate(vectors or [])}
    first = None if vectors is None else [vector[:1] for vector in vectors]
    out |= dict(trace_image_encoder(model, sam_images[:1], first))
    encoded = model.text_sam.beit3(beit_images, tokens)
    out |= {"beit3_encoder_out_frame0": encoded[:1], "beit3_cls": encoded[:, :1]}
    features = model.text_sam.encode_image(sam_images, vectors)
    prompt = model.text_sam.encode_prompt(beit_images, tokens)
    out |= {"prompt_embedding": prompt, "decoder_sparse": prompt}
    out |= {
        "decoder_image_pe": model.text_sam.prompt_encoder.positions(),
        "decoder_dense": model.text_sam.prompt_encoder.dense(),
    }
    if features.high_res:
        out["decoder_image_embeddings"] = features.embedding
        for name, level in zip(("s0", "s1"), features.high_res, strict=True):
            out[f"decoder_high_res_{name}_frame0"] = thinned(level[:1], height_dim=2)
    else:
        out["image_encoder_out"] = features.embedding
    prediction = model(
        sam_images,
        beit_images,
        case.io["inputs.clip_embeddings"].float().flatten(0, 1),
        case.io["inputs.clap_embeddings"].float().flatten(0, 1),
    )
    height, width = case.io["outputs.pred_masks"].shape[-2:]
    return out | av2t_masks(model, prediction, (height, width))


def av2t_masks(model: Av2tSam, prediction: MaskPrediction, size: tuple[int, int]) -> Outputs:
    """Return the recorded parts of the decoder's result."""
    out = {
        "all4_low_res_masks_frame0": prediction.logits[:1],
        "all4_iou_predictions": prediction.iou,
        "iou_predictions_multi": prediction.iou[:, 1:],
        "selected_multimask_index": prediction.iou[:, 1:].argmax(dim=1),
        "low_res_masks_selected": best_mask(prediction),
        "pred_masks": model.text_sam.resize(best_mask(prediction), size),
    }
    if prediction.object_score is not None:
        out["object_score_logits"] = prediction.object_score
    return out


def trace_image_encoder(
    model: Av2tSam, images: Tensor, vectors: list[Tensor] | None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the output of the patch embedding, every block and SAM 2's FPN for one frame."""
    encoder: Any = model.text_sam.image_encoder
    sam2 = model.config.sam.kind == "sam2"
    patches = (encoder.backbone if sam2 else encoder).patch_embed(images)
    yield "patch_embed_out_frame0", thinned(patches, height_dim=1)
    start = encoder.backbone.embed(images) if sam2 else patches + encoder.pos_embed
    for number, tokens in enumerate(encoder.block_outputs(start, vectors)):
        yield f"encoder_block_out_frame0.{number:02}", thinned(tokens, height_dim=1)
    if sam2:
        for number, level in enumerate(encoder.pyramid(encoder.stage_outputs(images, vectors))):
            yield f"fpn_out_frame0.{number}", thinned(level, height_dim=2)


def run_text(case: Case) -> Outputs:
    """Run the original network with text: one image, several phrases."""
    model = load(
        case.folder / "weights.safetensors", model_config(case.config["config"]), ("text_sam",)
    )
    text_sam = model.text_sam
    beit_images = case.io["inputs.images_beit"].float()
    embedded = text_sam.beit3.embed_text(case.io["inputs.input_ids"])
    encoded = text_sam.beit3(beit_images, embedded)
    prompt = text_sam.encode_prompt(beit_images, embedded)
    image = text_sam.encode_image(case.io["inputs.images_sam"].float())
    features = image.select(torch.zeros(len(prompt), dtype=torch.long))
    prediction = text_sam.decode(features, prompt)
    logits, iou = single_mask(prediction)
    out = {"beit3_encoder_out": encoded, "beit3_cls": encoded[:, :1], "prompt_embedding": prompt}
    out |= {
        "multimask_false.low_res_masks": logits,
        "multimask_false.iou_predictions": iou,
        "multimask_false.pred_masks": full_size(case, model, logits),
        "multimask_true.low_res_masks": prediction.logits[:, 1:],
        "multimask_true.iou_predictions": prediction.iou[:, 1:],
        "multimask_true.pred_masks": full_size(case, model, best_mask(prediction)),
    }
    padding = ~case.io["inputs.attention_mask"]
    prompt = text_sam.encode_prompt(beit_images, embedded, padding)
    prediction = text_sam.decode(features, prompt)
    sam2 = model.config.sam.kind == "sam2"
    chosen = best_mask(prediction) if sam2 else prediction.logits[:, :1]
    out |= {
        "forward_with_padding_mask.beit3_encoder_out": text_sam.beit3(
            beit_images, embedded, padding
        ),
        "forward_with_padding_mask.prompt_embedding": prompt,
        "forward_with_padding_mask.pred_masks": full_size(case, model, chosen),
    }
    return out


def full_size(case: Case, model: Av2tSam, logits: Tensor) -> Tensor:
    """Resize masks to the image's own size, without the padding of the square: (N, H, W)."""
    height, width = case.io["inputs.original_size"].tolist()
    rows, columns = case.io["inputs.resize_shape"].tolist()
    resized = model.text_sam.resize(logits, (height, width), resized=(rows, columns))
    return resized[:, 0]


# --- sound ---------------------------------------------------------------------------------------


def run_clap(case: Case) -> Outputs:
    """Run Microsoft CLAP's audio tower, stage by stage."""
    embedder = load_clap(case)
    inputs = {
        "mono_1s": case.io["inputs.mono_1s_int16"],
        "stereo_flat_2s": case.io["inputs.stereo_1s_int16"].flatten(1),
    }
    waves = {name: samples.float() / 32768 for name, samples in inputs.items()}
    out: Outputs = {}
    for name, samples in waves.items():
        out |= {f"{name}.{key}": value for key, value in trace_clap(embedder, samples).items()}
    stft = embedder.htsat.spectrogram_extractor.stft
    rows = case.io["outputs.stft_kernel_rows.index"]
    out |= {
        "stft_kernel_rows.conv_real": stft.conv_real.weight[rows, 0],
        "stft_kernel_rows.conv_imag": stft.conv_imag.weight[rows, 0],
        "stft_kernel_rows.index": rows,
    }
    embedder.htsat.logmel_extractor.melW.copy_(case.io["inputs.standard_melW"])
    for name, samples in waves.items():
        traced = trace_clap(embedder, samples)
        out |= {f"standard_melW.{name}.{key}": traced[key] for key in ("latent", "embedding")}
    return out


def load_clap(case: Case) -> ClapEmbedder:
    """Load the tower with the weights of the case and the Fourier transform that they lack."""
    sizes = case.config["config"]
    clap = ClapConfig(
        kind="microsoft",
        embed_dim=sizes["d_proj"],
        rate_hz=sizes["input_sample_rate"],
        mel_rate_hz=sizes["mel_sample_rate"],
        n_fft=sizes["stft_n_fft"],
        hop=sizes["stft_hop"],
        mel_bins=sizes["mel_bins"],
        fmin_hz=sizes["fmin"],
        fmax_hz=sizes["fmax"],
        spec_size=sizes["spec_size"],
        patch_size=sizes["patch_size"],
        dim=sizes["embed_dim"],
        depths=tuple(sizes["depths"]),
        heads=tuple(sizes["num_heads"]),
        window_size=sizes["window_size"],
        classes=sizes["num_classes"],
    )
    tiny = ModelConfig(
        name="fixture",
        sam=SamConfig(depth=1, dim=16, heads=1, global_blocks=()),
        beit3=Beit3Config(depth=1, dim=16, heads=1, ffn_dim=16),
        clip=ClipConfig(layers=1),
        clap=clap,
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "clap.safetensors"
        state = load_file(case.folder / "weights.safetensors")
        prefix = "audio_encoder.base.htsat.spectrogram_extractor.stft"
        for name, kernel in zip(("real", "imag"), fourier_kernels(clap.n_fft), strict=True):
            state.setdefault(f"{prefix}.conv_{name}.weight", kernel.contiguous())
        save_file(state, whole)
        return load(whole, tiny, ("clap",)).clap


def trace_clap(embedder: ClapEmbedder, samples: Tensor) -> Outputs:
    """Return the recorded outputs of the tower, subsampled as in the recording."""
    power = embedder.htsat.spectrogram_extractor(samples)
    logmel = embedder.logmel(embedder.prepare(samples))
    image = embedder.image(logmel)
    out = {
        "power_spectrogram_sub": power[:, :, ::6, ::8],
        "logmel": logmel,
        "bn0": embedder.normalise(logmel)[:, :, ::4],
        "image_sub": image[:, :, ::4, ::4],
    }
    tokens = embedder.htsat.patch_embed(image)
    out["patch_embed_row0"] = tokens[:1, ::16]
    for number, stage in enumerate(embedder.htsat.layers):
        tokens = run_stage(stage, tokens)
        out[f"layer{number}_out_row0"] = tokens[:1, :: max(1, tokens.shape[1] // 64)]
    encoded = embedder.encode(image)
    return out | {
        "latent": encoded.mean(dim=1),
        "embedding": embedder(samples),
        "clipwise_output": embedder.classify(encoded),
    }


def run_segments(case: Case) -> Outputs:
    """Cut a sound file into segments as the reference does."""
    out: Outputs = {}
    for name, clip in case.config["clips"].items():
        samples = case.io[f"{name}.input_int16"].float() / 32768
        rates = (clip["in_rate"], clip["out_rate"])
        resampled = sinc_resample(samples, *rates)
        segments = reference_segments(
            samples, rates[0], to_hz=rates[1], seconds=clip["segments_shape"][0]
        )
        out |= {
            f"{name}.resampled_sub21": resampled[:, ::21],
            f"{name}.segments_sub20": segments[:, ::20],
            f"{name}.segment_sums": segments.double().sum(dim=1),
            f"{name}.segment_sumsq": segments.double().square().sum(dim=1),
        }
    return out


# --- images, scores, loss ----------------------------------------------------------------------


def run_preprocess(case: Case) -> Outputs:
    """Run the three preprocessing functions on frames."""
    out: Outputs = {}
    for name, recorded in case.values["values"].items():
        frames = case.io[f"{name}.rgb_uint8"].permute(2, 0, 1)[None]
        side = max(recorded["sam"]["shape"][1:])
        height, width = longest_side(frames.shape[-2], frames.shape[-1], side)
        resized = resize(frames, height, width, "bilinear")[0]
        sam = sam_image(frames, (height, width))[0]
        beit = beit_image(frames, recorded["beit"]["shape"][-1])[0]
        clip = clip_image(frames, recorded["clip"]["shape"][-1])
        digest = hashlib.sha256(resized.permute(1, 2, 0).contiguous().numpy().tobytes())
        out |= {
            f"{name}.sam_resized_uint8_sub16": resized.permute(1, 2, 0)[::16, ::16],
            f"{name}.sam_norm_sub16": sam[:, ::16, ::16],
            f"{name}.sam_norm_row300": sam[:, 300],
            f"{name}.beit_sub3": beit[:, ::3, ::3],
            f"{name}.beit_row100": beit[:, 100],
            f"{name}.clip_sub3": clip[:, ::3, ::3],
            f"{name}.clip_row100": clip[:, 100],
            f"{name}.sam_resized_uint8_sha256": torch.tensor(
                float(digest.hexdigest() != recorded["sam_resized_uint8_sha256"])
            ),
        }
    return out


def clip_image(frames: Tensor, size: int) -> Tensor:
    """Preprocess one frame as OpenAI's CLIP does, (3, size, size)."""
    with torch.device("meta"):
        embedder = ClipEmbedder(ClipConfig(image_size=size, layers=1))
    return embedder.preprocess(frames, crop=True)[0]


def run_metrics(case: Case) -> Outputs:
    """Compute mean IoU and F-score of both code bases, per set and per frame."""
    out: Outputs = {}
    for name, recorded in case.values["values"].items():
        if f"{name}.logits" not in case.io:
            continue
        logits = case.io[f"{name}.logits"].float()
        masks = case.io[f"{name}.masks_uint8"] > 0
        scores = score(logits, masks)
        frames = [score(logits[n : n + 1], masks[n : n + 1]) for n in range(len(logits))]
        out |= {f"{name}.{key}": torch.tensor(v) for key, v in scores.items() if key in recorded}
        for key in scores:
            if f"per_frame_{key}" in recorded:
                out[f"{name}.per_frame_{key}"] = torch.tensor([frame[key] for frame in frames])
    return out | dataset_scores(case, out)


def dataset_scores(case: Case, scores: Outputs) -> Outputs:
    """Average the scores of the sets, each of which counts as one video."""
    recorded = case.values["values"].get("__dataset_level__", {})
    names = {
        "av2t_miou": "av2t_mask_iou",
        "av2t_F": "av2t_fmeasure",
        "avsbench_miou": "avsbench_mask_iou",
        "avsbench_F": "avsbench_fmeasure",
    }
    return {
        f"__dataset_level__.{key}": torch.stack(
            [scores[f"{video}.{name}"] for video in recorded["order"]]
        ).mean()
        for key, name in names.items()
        if key in recorded
    }


def score(logits: Tensor, masks: Tensor) -> dict[str, float]:
    """Return all scores of one video under their recorded names."""
    iou = video_iou(logits, masks)
    ours, theirs = (
        video_f_score(logits, masks, protocol) for protocol in ("avsbench", "reference")
    )
    return {
        "av2t_mask_iou": iou,
        "avsbench_mask_iou": iou,
        "mask_iou": iou,
        "av2t_fmeasure": theirs,
        "avsbench_fmeasure": ours,
        "av2t_fmeasure_on_sigmoid": ours,
    }


def run_loss(case: Case) -> Outputs:
    """Compute the loss, its soft-IoU part and the gradient."""
    out: Outputs = {}
    for name, recorded in case.values["values"].items():
        if f"{name}.logits" not in case.io:
            continue
        with torch.enable_grad():
            logits = case.io[f"{name}.logits"].float().clone().requires_grad_()
            masks = (case.io[f"{name}.masks_uint8"] > 0).float()
            loss = mask_loss(logits, masks)
            (gradient,) = torch.autograd.grad(loss, logits)
        iou = soft_iou_loss(logits, masks).detach()
        parts = {"loss": loss.detach(), "iou_loss": iou, "bce": loss.detach() - iou}
        out[f"{name}.grad"] = gradient
        out |= {f"{name}.{key}": value for key, value in parts.items() if key in recorded}
    return out


# --- comparing -----------------------------------------------------------------------------------


def stored_outputs(case: Case) -> Outputs:
    """Return all recorded outputs, under the names that the runners use."""
    inputs = ("inputs.", "input_int16", "rgb_uint8", ".logits", ".masks_uint8")
    stored = {
        name.removeprefix("outputs."): tensor
        for name, tensor in case.io.items()
        if not any(part in name for part in inputs)
    }
    for name, recorded in case.values.get("values", {}).items():
        if f"{name}.logits" in case.io or name == "__dataset_level__":
            stored |= {f"{name}.{key}": torch.tensor(v) for key, v in _numbers(recorded)}
        if "sam_resized_uint8_sha256" in recorded:
            stored[f"{name}.sam_resized_uint8_sha256"] = torch.tensor(0.0)
    return stored


def _numbers(recorded: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the scores and losses, without notes and without numbers about other numbers."""
    described = {"loss_fp64", "grad_abs_max"}
    return (
        (key, value)
        for key, value in recorded.items()
        if isinstance(value, float | list) and key not in described and key != "order"
    )


def compare(case: Case, found: Outputs) -> dict[str, dict[str, float | None]]:
    """Return difference and tolerance of every recorded output; missing ones differ infinitely."""
    compared: dict[str, dict[str, float | None]] = {}
    for name, stored in stored_outputs(case).items():
        computed = found.get(name)
        difference = math.inf
        if computed is not None and computed.shape == stored.shape:
            difference = float((computed.double() - stored.double()).abs().max())
        tolerance = max(
            RELATIVE_TOLERANCE * spread(stored),
            NOISE_FACTOR * case.noise(name),
        )
        compared[name] = {
            "difference": difference if math.isfinite(difference) else None,
            "tolerance": tolerance,
        }
    return compared


def spread(stored: Tensor) -> float:
    """Return the standard deviation, or a tenth of the largest value if it is zero."""
    values = stored.double()
    return float(values.std(correction=0)) or float(values.abs().max()) / 10


def kind_of(case: Case) -> Callable[[Case], Outputs] | None:
    """Return the function that runs a case, recognised by the contents of its files."""
    sizes = case.config.get("config", {})
    by_name = {"preprocess": run_preprocess, "metrics": run_metrics, "loss": run_loss}
    if "repo" in sizes:
        return run_av2t if sizes["repo"] == "av2t" else run_text
    if "d_proj" in sizes:
        return run_clap
    if "clips" in case.config:
        return run_segments
    return by_name.get(str(case.values.get("case", "")).split("_", maxsplit=1)[0])


def run_case(folder: Path) -> dict[str, object]:
    """Run one case and compare its outputs."""
    case = Case.read(folder)
    runner = kind_of(case)
    if runner is None:
        return {"case": folder.name, "ok": False, "error": "unknown kind of case"}
    with torch.no_grad():
        compared = compare(case, runner(case))
    ok = all(
        c["difference"] is not None and c["difference"] <= (c["tolerance"] or 0.0)
        for c in compared.values()
    )
    return {"case": folder.name, "ok": ok, "outputs": compared}


def main() -> int:
    """Run all cases under a folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with a case in each subfolder")
    folders = sorted(p.parent for p in parser.parse_args().folder.rglob("io.safetensors"))
    good = bool(folders)
    for folder in folders:
        result = run_case(folder)
        good &= bool(result["ok"])
        print(json.dumps(result), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
