"""Score a nano checkpoint: `python recipes/nano/score.py av2tsam_cli/assets/nano.safetensors`.

The scenes are the test split of `av2tsam data synth --seed 0`, which shares no scene with the
training split, in AVSBench's format: five 224 x 224 frames and a 16 kHz sound track each. Besides
mIoU and F, the script measures the response to sound that does not belong to the picture: the sound
track is replaced by a category that is not in view, by noise, or by the faint hiss of an empty room
(-50 dBFS, above the silence gate). It also measures how well the towers name the sound
sources of a window and the objects in a frame. With `--hear words`, the same scenes are segmented
through names, and the names are scored too.
"""

import argparse
import json
import runpy
import tempfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from av2tsam_cli.avsbench_format import FRAME_OFFSET_S, FRAME_PX
from av2tsam_cli.evaluation.metrics import frame_iou, video_f_score, video_iou
from av2tsam_cli.evaluation.naming import add_names, count_names
from av2tsam_cli.evaluation.semantic import add_classes, score_classes
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import Segmenter
from av2tsam_cli.masks import native_labels
from av2tsam_cli.model.preprocess import squash
from av2tsam_cli.pipeline import segment_video
from av2tsam_cli.segment_options import SILENCE_DBFS, Hear
from av2tsam_cli.synth.clips import sounding_mask
from av2tsam_cli.synth.dataset import RATE_HZ
from av2tsam_cli.synth.render import Renderer
from av2tsam_cli.synth.scenes import NAMES, sample_scene, scene_rng
from av2tsam_cli.synth.sounds import background_noise, soundtrack, synthesise
from av2tsam_cli.synth.values import BackgroundNoise, Scene
from av2tsam_cli.values import AudioWindow
from av2tsam_cli.words.segmenter import WordsSegmenter

SOUNDS = ("true", "other", "noise", "hiss")
SMALL_SHARE = 0.025
"""Frames whose sounding objects cover less than this share of the picture are scored separately."""
VISIBLE_SHARE = 0.0025
"""Least share of the frame that an object must cover to count as in view."""


def main() -> None:
    """Print the scores per subset and kind of sound, and the IoU per sample, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--pool", default="test", choices=("val", "test"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hear", default="trained", choices=("trained", "words"))
    parser.add_argument("--samples", type=Path, help="folder of the sample videos and masks")
    args = parser.parse_args()
    model = load_model(args.model)
    segmenter = WordsSegmenter(model) if args.hear == "words" else Segmenter(model)
    scores: dict[str, object] = {"videos": args.videos, "pool": args.pool, "seed": args.seed}
    scores["hear"] = args.hear
    for subset in ("s4", "ms3"):
        scenes = [
            sample_scene(scene_rng(args.pool, args.seed, i), subset=subset)
            for i in range(args.videos)
        ]
        scores[subset] = score(segmenter, scenes, args.seed) | (
            word_scores(segmenter, scenes)
            if isinstance(segmenter, WordsSegmenter)
            else name_scores(model, scenes)
        )
    if args.samples:
        scores["samples"] = {
            name: sample_iou(model, args.hear, args.samples / f"{name}.mp4", scene)
            for name, scene in sample_scenes().items()
        }
    print(json.dumps(scores, indent=2))


def score(segmenter: Segmenter, scenes: list[Scene], seed: int) -> dict[str, float]:
    """Return mIoU and F with the true sound, and the relative mask area with other sounds."""
    iou, f_score, positive, small, areas = [], [], [], [], dict.fromkeys(SOUNDS, 0.0)
    for index, scene in enumerate(scenes):
        frames, masks = stills(scene)
        sounding = (masks.any(2).any(1)).tolist()
        for kind in SOUNDS:
            rng = np.random.default_rng((seed, index))
            logits = run(segmenter, frames, track(scene, kind, rng))
            found = (logits > 0).float().mean((1, 2))
            areas[kind] += float(found[sounding].sum())
            if kind == "true":
                iou.append(video_iou(logits, masks))
                f_score.append(video_f_score(logits, masks))
                if any(sounding):
                    positive.append(video_iou(logits[sounding], masks[sounding]))
                share = masks.float().mean((1, 2))
                is_small = (share > 0) & (share < SMALL_SHARE)
                small += frame_iou(logits[is_small], masks[is_small]).tolist()
    ratios = {f"area_{kind}_sound": areas[kind] / areas["true"] for kind in SOUNDS[1:]}
    values = {
        "miou": np.mean(iou),
        "f_score": np.mean(f_score),
        "miou_sounding": np.mean(positive),
        "miou_small": np.mean(small),
        "frames_small": len(small),
    }
    return {name: round(float(value), 4) for name, value in (values | ratios).items()}


def word_scores(segmenter: WordsSegmenter, scenes: list[Scene]) -> dict[str, float]:
    """Return how well sources are named per second, and mIoU and F per category.

    A name is right if the source sounds in that second, in view or not. mIoU and F per category are
    computed as in AVSBench-semantic; background counts as a category.
    """
    names = [source.name for source in segmenter.hearing.vocabulary.sources]
    naming, classes = [], []
    for scene in scenes:
        drawn = draw_seconds(scene)
        windows, logits = run_named(
            segmenter, [rgb for rgb, _ in drawn], soundtrack(scene, RATE_HZ)
        )
        found, true = [], []
        given = [segmenter.names_of(window) for window in windows]
        sets = [[{*map(names.index, each)} for each in s] for s in (given, voices_by_second(scene))]
        naming.append(count_names(*sets))
        for second, ((_, ids), heard) in enumerate(zip(drawn, given, strict=True)):
            codes = np.array([0, *(names.index(name) + 1 for name in heard)], np.uint8)
            resize = segmenter.model.network.text_sam.resize
            found.append(codes[native_labels(logits[second], ids.shape, 0.5, resize=resize)])
            codes = np.zeros(256, np.uint8)
            for slot in scene.sounding(second):
                codes[slot + 1] = names.index(scene.instances[slot].category) + 1
            true.append(codes[ids])
        classes.append(score_classes(np.stack(found), np.stack(true)))
    together = add_classes(classes)
    iou, f_score = together.means()
    seen = together.frames > 0
    counts = add_names(naming)
    values = {
        "class_miou": iou[seen].mean(),
        "class_f_score": f_score[seen].mean(),
        "names_precision": counts.precision,
        "names_recall": counts.recall,
        "names_f1": counts.f1,
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def name_scores(model: LoadedModel, scenes: list[Scene]) -> dict[str, float]:
    """Return the share of windows and of frames whose names are all right, and no others."""
    network, clip, clap = model.network, [], []
    if network.clip.names is None or network.clap.names is None:
        return {}
    for scene in scenes:
        windows = torch.from_numpy(soundtrack(scene, RATE_HZ).reshape(-1, RATE_HZ))
        drawn = draw_seconds(scene)
        frames = np.stack([squash(rgb, network.config.source_size) for rgb, _ in drawn])
        with torch.inference_mode():
            heard = network.clap.names(network.embed_windows(windows)) > 0
            seen = network.clip.names(
                network.embed_frames(torch.from_numpy(frames).permute(0, 3, 1, 2))
            )
        clap += (
            (heard == _named(network.clap.config.names, voices_by_second(scene))).all(1).tolist()
        )
        in_view = _named(
            network.clip.config.names, [objects_in_view(scene, ids) for _, ids in drawn]
        )
        clip += ((seen > 0) == in_view).all(1).tolist()
    return {
        "windows_named_right": round(float(np.mean(clap)), 4),
        "frames_named_right": round(float(np.mean(clip)), 4),
    }


def voices_by_second(scene: Scene) -> list[set[str]]:
    """Return the categories that sound in each second."""
    return [
        {voice.category for voice in scene.voices if voice.sounds_at(second)}
        for second in range(scene.duration_s)
    ]


def objects_in_view(scene: Scene, ids: npt.NDArray[np.uint8]) -> set[str]:
    """Return the categories in view in a frame, given its object slots (H, W)."""
    return {
        instance.category
        for slot, instance in enumerate(scene.instances, start=1)
        if (ids == slot).mean() >= VISIBLE_SHARE
    }


def _named(names: tuple[str, ...], wanted: list[set[str]]) -> torch.Tensor:
    """Return which names apply, bool, (N, K)."""
    return torch.tensor([[name in some for name in names] for some in wanted])


def stills(scene: Scene) -> tuple[list[npt.NDArray[np.uint8]], torch.Tensor]:
    """Return the frames of a scene, (H, W, 3) uint8, and their true masks, bool, (5, H, W)."""
    drawn = draw_seconds(scene)
    masks = [sounding_mask(scene, ids, second) for second, (_, ids) in enumerate(drawn)]
    return [rgb for rgb, _ in drawn], torch.from_numpy(np.stack(masks))


def draw_seconds(
    scene: Scene,
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Draw AVSBench's frame of each second: pixels (H, W, 3) and object slots (H, W)."""
    renderer = Renderer(scene, FRAME_PX, FRAME_PX)
    return [renderer.frame(second + FRAME_OFFSET_S) for second in range(scene.duration_s)]


def track(scene: Scene, kind: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the sound track of a scene, or its replacement."""
    if kind == "true":
        return soundtrack(scene, RATE_HZ)
    if kind == "other":
        known = {instance.category for instance in scene.instances}
        known |= {voice.category for voice in scene.voices}
        other = str(rng.choice([name for name in NAMES if name not in known]))
        return synthesise(other, rng, scene.duration_s, RATE_HZ)
    level = rng.uniform(-40, -12) if kind == "noise" else -50.0
    colour = ("white", "pink", "brown")[int(rng.integers(3))]
    noise = BackgroundNoise(int(rng.integers(2**31)), colour, level)
    return background_noise(noise, scene.duration_s, RATE_HZ)


def run(
    segmenter: Segmenter, frames: list[npt.NDArray[np.uint8]], sound: npt.NDArray[np.float32]
) -> torch.Tensor:
    """Return logits (T, H, W) of one frame per second; -100 where nothing is heard."""
    result = torch.full((len(frames), *frames[0].shape[:2]), -100.0)
    resize = segmenter.model.network.text_sam.resize
    for second, logits in enumerate(run_named(segmenter, frames, sound)[1]):
        if logits is not None:
            result[second] = resize(logits[None].float(), frames[0].shape[:2])[0].amax(dim=0)
    return result


def run_named(
    segmenter: Segmenter, frames: list[npt.NDArray[np.uint8]], sound: npt.NDArray[np.float32]
) -> tuple[list[AudioWindow], list[torch.Tensor | None]]:
    """Return the windows, and logits (K, h, w) of one frame each; None where nothing is heard."""
    seconds = enumerate(sound.reshape(-1, RATE_HZ))
    windows = [*segmenter.hear(AudioWindow(second, k, RATE_HZ) for k, second in seconds)]
    kept = [k for k, w in enumerate(windows) if w.level_dbfs >= SILENCE_DBFS and w.sources != ()]
    logits: list[torch.Tensor | None] = [None] * len(frames)
    if kept:
        inputs = segmenter.prepare([frames[k] for k in kept])
        rows = segmenter.source_logits(inputs, [windows[k] for k in kept])
        for k, row in zip(kept, rows, strict=True):
            logits[k] = row
    return windows, logits


def sample_iou(model: LoadedModel, hear: Hear, video: Path, scene: Scene) -> dict[str, float]:
    """Compare the masks of `segment` with the sounding and with the silent objects of a sample."""
    rate = 25
    with tempfile.TemporaryDirectory() as folder:
        segment_video(video, folder, model=model, hear=hear, format="masks")
        paths = sorted((Path(folder) / video.stem).glob("*.png"))
        found = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in paths]
    renderer = Renderer(scene, *found[0].shape[::-1])
    sounding, silent, stray = [], [], []
    for index, mask in enumerate(found):
        ids = renderer.frame(index / rate)[1]
        true = sounding_mask(scene, ids, index / rate)
        if true.any():
            sounding.append((mask & true).sum() / (mask | true).sum())
            others = (ids > 0) & ~true
            silent += [(mask & others).sum() / (mask | others).sum()] if others.any() else []
        else:
            stray.append(mask.mean())
    means = {"iou_sounding": sounding, "iou_silent": silent, "area_when_nothing_sounds": stray}
    return {name: round(float(np.mean(values)), 4) for name, values in means.items() if values}


def sample_scenes() -> dict[str, Scene]:
    """Return the scenes of the samples by name, from the script that generates them."""
    path = Path(__file__).parents[1] / "samples" / "make.py"
    script = runpy.run_path(str(path))
    return {name: script["compose"](sample) for name, sample in script["SAMPLES"].items()}


if __name__ == "__main__":
    main()
