"""Evaluation against plain counting, with negative audio, and in several processes."""

import math
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.data.avsbench import Clip, open_split
from av2tsam_cli.data.clips import read_clip_frames, read_clip_masks, read_clip_windows
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.evaluation.evaluate import (
    EvaluatedVideo,
    Evaluation,
    evaluate,
    evaluate_videos,
)
from av2tsam_cli.evaluation.mask_files import mask_path
from av2tsam_cli.evaluation.negative_audio import choose_donors, noise
from av2tsam_cli.evaluation.options import EvaluateOptions, ScoringProtocol
from av2tsam_cli.evaluation.plan import plan_evaluation
from av2tsam_cli.evaluation.report import pick_examples, to_json
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.model.sam import best_mask
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions

BoolArray = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 with three test videos, one without a visible sound source; do not modify."""
    out = tmp_path_factory.mktemp("scored")
    write_dataset(out, subset="s4", videos=3, seed=4, split_sizes=(0, 0, 3), workers=1)
    return out


@pytest.fixture(scope="module")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MS3 with two training and two validation videos, one of which becomes silent."""
    out = tmp_path_factory.mktemp("training_data")
    write_dataset(out, subset="ms3", videos=4, seed=5, split_sizes=(2, 2, 0), workers=1)
    path = open_split(out, "ms3", "val")[0].sound
    with wave.open(str(path)) as file:
        parameters, samples = file.getparams(), bytearray(file.readframes(file.getnframes()))
    end = (
        len(samples) * 7 // 10 // 2 * 2
    )  # not exactly on a second, because resampling spreads the end
    samples[end:] = bytes(len(samples) - end)
    with wave.open(str(path), "wb") as file:
        file.setparams(parameters)
        file.writeframes(samples)
    return out


@pytest.fixture
def damaged(scored: Path, tmp_path: Path) -> Path:
    """A copy of `scored` that tests may damage."""
    return Path(shutil.copytree(scored, tmp_path / "damaged"))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The default folder of the embedding cache."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AV2TSAM_HOME", str(home))
        yield home / "embeddings"


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model, device="cpu", precision="fp32")


def score(
    model: LoadedModel, data: Path, **options: Any
) -> tuple[Evaluation, dict[str, EvaluatedVideo]]:
    """Return an evaluation and its videos by name."""
    videos: dict[str, EvaluatedVideo] = {}
    evaluate_options = EvaluateOptions(data=str(data), **options)
    evaluation = evaluate(
        model,
        evaluate_options,
        plan_evaluation(evaluate_options),
        on_video=lambda video: videos.update({video.result.clip.name: video}),
    )
    return evaluation, videos


def record_of(model: LoadedModel, data: Path, **options: Any) -> dict[str, Any]:
    evaluation, _ = score(model, data, **options)
    return to_json(evaluation, EvaluateOptions(data=str(data), **options))


def logits_of(model: LoadedModel, clip: Clip) -> torch.Tensor:
    """Compute logits (T, H, W) of a video as in the paper, frame by frame."""
    network = model.network
    frames, masks = read_clip_frames(clip, clip.labelled), read_clip_masks(clip, clip.labelled)
    windows = read_clip_windows(clip, clip.labelled, network.clap.config.rate_hz)
    rows = []
    for rgb, window in zip(frames, windows, strict=True):
        pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            clap = network.embed_windows(torch.from_numpy(window)[None])
            logits = network(*network.prepare(pixels), network.embed_frames(pixels), clap)
            rows.append(network.text_sam.resize(best_mask(logits), masks.shape[1:])[0, 0])
    return torch.stack(rows)


def counted_iou(predicted: BoolArray, true: BoolArray) -> float:
    """Count the IoU of one frame, with AVSBench's rule for empty true masks."""
    if not true.any():
        return float(np.mean(~predicted))
    return float(np.sum(predicted & true) / np.sum(predicted | true))


def counted_f(scores: npt.NDArray[Any], true: BoolArray) -> float:
    """Count F of one video, threshold by threshold."""
    rows = [row for row in zip(scores, true, strict=True) if row[1].any()]
    curve = []
    for threshold in torch.linspace(0, 1 - 1e-10, 255).tolist():
        values = []
        for one, mask in rows:
            predicted = one >= threshold
            hits = np.sum(predicted & mask)
            precision, recall = hits / max(predicted.sum(), 1e-20), hits / mask.sum()
            values.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
        curve.append(np.mean(values) if values else 0.0)
    return float(max(curve))


def test_miou_equals_the_counted_iou(model: LoadedModel, scored: Path) -> None:
    evaluation, videos = score(model, scored)
    truths = {
        clip.name: read_clip_masks(clip, clip.labelled) for clip in open_split(scored, "s4", "test")
    }
    assert any(not truth.any() for truth in truths.values())
    expected = [
        np.mean([counted_iou(*pair) for pair in zip(videos[n].masks, truths[n], strict=True)])
        for n in truths
    ]
    record = to_json(evaluation, EvaluateOptions(data=str(scored)))
    assert record["miou"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert [r.gated.original.miou for r in evaluation.results] == pytest.approx(expected, abs=1e-6)
    assert (record["videos"], record["frames"]) == (3, 15)
    assert sum(category["videos"] for category in record["categories"].values()) == 3


@pytest.mark.parametrize("protocol", get_args(ScoringProtocol))
def test_f_equals_that_of_the_network_run_frame_by_frame(
    model: LoadedModel, scored: Path, protocol: ScoringProtocol
) -> None:
    expected = []
    for clip in open_split(scored, "s4", "test"):
        logits = logits_of(model, clip)
        scores = logits.sigmoid() if protocol == "avsbench" else logits
        expected.append(counted_f(scores.numpy(), read_clip_masks(clip, clip.labelled)))
    record = record_of(model, scored, protocol=protocol)
    assert record["protocol"] == protocol
    assert record["f_score"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_the_protocols_differ_only_in_f(model: LoadedModel, scored: Path) -> None:
    avsbench, reference = (
        record_of(model, scored, protocol=protocol) for protocol in get_args(ScoringProtocol)
    )
    assert avsbench["miou"] == reference["miou"]
    assert avsbench["f_score"] != reference["f_score"]


def test_the_batch_size_changes_only_the_last_bits(model: LoadedModel, scored: Path) -> None:
    one, many = (record_of(model, scored, batch_size=size) for size in (1, 64))
    assert one["miou"] == pytest.approx(many["miou"], abs=1e-3)
    assert one["f_score"] == pytest.approx(many["f_score"], abs=1e-3)


def test_silence_gives_empty_masks_and_ungated_scores_are_reported_too(
    model: LoadedModel, scored: Path
) -> None:
    evaluation, videos = score(model, scored, audio="silence")
    record = to_json(evaluation, EvaluateOptions(data=str(scored), audio="silence"))
    assert not any(one.masks.any() for one in videos.values())
    assert (record["fpr"], record["negative"]["frames_found"]) == (0.0, 0.0)
    # One of the three videos has no visible sound source: AVSBench scores its empty masks with 1.
    assert record["negative"]["miou"] == pytest.approx(1 / 3)
    assert record["silent_frames"] == 15
    ungated = record_of(model, scored, audio="silence", silence_dbfs=-math.inf)
    assert ungated["fpr"] > 0.1  # the tiny network predicts about half of any image
    assert record["ungated"] == {name: ungated[name] for name in record["ungated"]}
    assert "ungated" not in ungated


def test_negative_audio_is_scored_as_in_avsbench_robust(model: LoadedModel, scored: Path) -> None:
    original = record_of(model, scored)
    evaluation, videos = score(model, scored, audio="noise")
    record = to_json(evaluation, EvaluateOptions(data=str(scored), audio="noise"))
    shares = [one.masks.mean() for one in videos.values()]
    assert record["fpr"] == pytest.approx(float(np.mean(shares)), abs=1e-6)
    names = ("miou", "f_score", "j", "boundary_f", "j_and_f", "intervals")
    assert record["positive"] == {name: original[name] for name in names}
    pairs = [(one.masks, one.samples[0].masks.numpy()) for one in videos.values()]
    overlaps = [np.mean([counted_iou(*p) for p in zip(*pair, strict=True)]) for pair in pairs]
    assert record["negative"]["miou"] == pytest.approx(np.mean(overlaps), abs=1e-6)
    good, bad = record["positive"]["miou"], record["negative"]["miou"]
    assert record["miou"] == pytest.approx(2 * good * (1 - bad) / (good + 1 - bad))


def test_noise_depends_on_the_seed_but_not_on_the_limit(model: LoadedModel, scored: Path) -> None:
    whole, _ = score(model, scored, audio="noise", seed=1)
    part, _ = score(model, scored, audio="noise", seed=1, limit=2)
    other, _ = score(model, scored, audio="noise", seed=2)
    assert part.results == whole.results[:2]
    assert other.results != whole.results
    samples = noise(1, 8_000, np.random.default_rng(0))[0]
    assert np.histogram(samples, 4, (-1, 1))[0] == pytest.approx(2_000, rel=0.1)


def clips(*categories: str | None, subset: Any = "s4") -> list[Clip]:
    return [
        Clip(f"v{k}", category, "test", subset, frames=(), masks=(), sound=Path(f"{k}.wav"))
        for k, category in enumerate(categories)
    ]


def test_offscreen_audio_has_another_category() -> None:
    s4 = clips(*("playing_piano", "playing_tabla", "dog") * 5)
    assert all(d.category != c.category for c, d in zip(s4, choose_donors(s4, 0), strict=True))
    assert choose_donors(s4, 0) == choose_donors(s4, 0) != choose_donors(s4, 1)
    several = clips("man_dog", "man_piano", "piano_car", "dog_car", subset="avss")
    found = [donor.category for donor in choose_donors(several, 0)]
    assert found == ["piano_car", "dog_car", "man_dog", "man_piano"]
    far = clips("playing_piano", "playing_violin", "male_speech", "dog_barking")
    found = [donor.category for donor in choose_donors(far, 0)]
    # As in AVSBench-Robust, neither another instrument nor a voice replaces an instrument.
    assert found[:3] == ["dog_barking", "dog_barking", "dog_barking"]
    assert found[3] in {"playing_piano", "playing_violin"}
    near = clips("playing_piano", "playing_violin")
    assert [d.name for d in choose_donors(near, 0)] == [
        "v1",
        "v0",
    ]  # similar categories are better than none
    unnamed = clips(None, None, None, subset="ms3")
    assert all(d.name != c.name for c, d in zip(unnamed, choose_donors(unnamed, 0), strict=True))
    with pytest.raises(
        UsageError, match="no video of another category is left to replace the audio of v0"
    ):
        choose_donors(clips("dog", "dog"), 0)


def test_offscreen_audio_is_that_of_the_donor(model: LoadedModel, scored: Path) -> None:
    _, videos = score(model, scored, audio="offscreen")
    for one in videos.values():
        donor, (original, negative) = one.planned.donor, one.samples
        assert donor is not None
        donor_audio = videos[donor.name].samples[0].embeddings
        assert torch.equal(negative.embeddings.clap, donor_audio.clap)
        assert torch.equal(negative.embeddings.level_dbfs, donor_audio.level_dbfs)
        assert torch.equal(negative.embeddings.clip, original.embeddings.clip)


def test_offscreen_audio_may_be_from_unlabelled_seconds(model: LoadedModel, avss: Path) -> None:
    """A video with ten labelled seconds gets audio of five seconds, one of them labelled."""
    evaluation, videos = score(model, avss, subset="avss", split="train", audio="noise")
    planned = replace(videos["four"].planned, donor=videos["one"].planned.clip)
    options = EvaluateOptions(data=str(avss), subset="avss", split="train", audio="offscreen")
    plan = plan_evaluation(replace(options, audio="noise"))
    (one,) = evaluate_videos(model, options, plan, [planned])
    assert isinstance(one, EvaluatedVideo)
    assert planned.donor is not None
    windows = read_clip_windows(
        planned.donor, [0, 1, 2, 3, 4] * 2, model.network.clap.config.rate_hz
    )
    expected = model.network.embed_windows(torch.from_numpy(windows)).detach()
    torch.testing.assert_close(one.samples[1].embeddings.clap, expected)
    assert len(evaluation.results) == 2


def test_reference_audio_is_both_channels_one_after_the_other(
    model: LoadedModel, damaged: Path, write_wav: Callable[..., Path]
) -> None:
    for clip in open_split(damaged, "s4", "test"):
        write_wav(clip.sound, np.tile([[0.25], [-0.5]], 80_000))
    (reference,) = score(model, damaged, reference_audio=True, limit=1)[1].values()
    (mono,) = score(model, damaged, limit=1)[1].values()
    # The left channel, then the right; without reference_audio, their mean.
    both = np.sqrt((0.25**2 + 0.5**2) / 2)
    expected = [20 * np.log10(level) for level in (both, 0.125)]
    found = [float(one.samples[0].embeddings.level_dbfs[2]) for one in (reference, mono)]
    assert found == pytest.approx(expected, abs=0.01)


def test_cached_embeddings_give_identical_scores(
    model: LoadedModel, scored: Path, tmp_path: Path
) -> None:
    def evaluated(audio: str, threads: int = 1) -> tuple[Evaluation, set[str]]:
        stages: list[str] = []
        options = EvaluateOptions(data=str(scored), audio=audio, cache=tmp_path)  # type: ignore[arg-type]
        plan = plan_evaluation(options)
        with torch_threads(threads):
            evaluation = evaluate(
                model, options, plan, progress=lambda name, *_: stages.append(name)
            )
        return evaluation, set(stages)

    for audio in ("noise", "offscreen"):
        cold, stages = evaluated(audio)
        assert stages == ({"embeddings", "videos"} if audio == "noise" else {"videos"})
        assert evaluated(audio) == (cold, {"videos"})
        for path in files(tmp_path, "*.npy"):
            path.unlink()
        assert evaluated(audio, threads=2) == (cold, {"embeddings", "videos"})


def test_evaluation_uses_the_embeddings_cached_by_training(
    tiny_model: Path, training_data: Path, tmp_path: Path
) -> None:
    stages: list[str] = []
    data: dict[str, Any] = {
        "data": str(training_data),
        "subset": "ms3",
        "cache": tmp_path / "cache",
    }
    train_options = TrainOptions(
        out=tmp_path / "run", model=str(tiny_model), device="cpu", precision="fp32", epochs=3,
        lr=5e-3, **data,
    )  # fmt: skip
    run_result = train(train_options)
    options = EvaluateOptions(split="val", **data)
    trained = load_model(run_result.checkpoint, device="cpu", precision="fp32")
    evaluation = evaluate(
        trained, options, plan_evaluation(options), progress=lambda name, *_: stages.append(name)
    )
    assert set(stages) == {"videos"}
    record = to_json(evaluation, options)
    assert record["silent_frames"] == 1
    assert record["miou"] == pytest.approx(run_result.best.val_miou, abs=1e-6)
    assert record["f_score"] == pytest.approx(run_result.best.val_f_score, abs=1e-6)
    assert record["ungated"]["miou"] != pytest.approx(run_result.best.val_miou, abs=1e-6)


def files(folder: Path, pattern: str) -> Iterator[Path]:
    return iter(sorted(folder.rglob(pattern)))


def shrink_mask(data: Path) -> Path:
    path = next(files(data / "Single-source/s4_data/gt_masks/test", "*000001_2.png"))
    path.write_bytes(cv2.imencode(".png", np.zeros((100, 224), np.uint8))[1].tobytes())
    return path


def remove_sound(data: Path) -> Path:
    shutil.rmtree(data / "Single-source/s4_data/raw_videos")
    path = next(files(data / "Single-source/s4_data/audio_wav/test", "*000001.wav"))
    path.unlink()
    return path


@pytest.mark.parametrize("damage", [shrink_mask, remove_sound])
def test_a_damaged_video_raises_an_error_or_is_skipped(
    model: LoadedModel, damaged: Path, damage: Callable[[Path], Path]
) -> None:
    intact = [r for r in score(model, damaged)[0].results if r.index != 1]
    path = damage(damaged)
    with pytest.raises(MediaError, match=str(path)):
        score(model, damaged)
    evaluation, _ = score(model, damaged, skip_bad=True)
    assert evaluation.skipped == ("s4_test_000001",)
    assert [r.gated for r in evaluation.results] == [r.gated for r in intact]


def test_a_video_with_a_damaged_donor_is_skipped(model: LoadedModel, damaged: Path) -> None:
    """The donor is beyond the limit, so the plan does not check its files."""
    options = EvaluateOptions(data=str(damaged), audio="offscreen", limit=1)
    (video,) = plan_evaluation(options).videos
    assert video.donor is not None
    video.donor.sound.write_bytes(b"nothing")
    with pytest.raises(MediaError, match=video.donor.name):
        evaluate(model, options, plan_evaluation(options))
    lenient = replace(options, skip_bad=True)
    with pytest.raises(MediaError, match="all 1 videos are corrupted"):
        evaluate(model, lenient, plan_evaluation(lenient))


@pytest.mark.parametrize("name", ["limit", "batch_size"])
def test_invalid_options_are_rejected(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(UsageError, match=f"`{name}` must be 1 or more, not 0"):
        EvaluateOptions(**options)


def test_the_gate_is_off_with_the_reference_protocol() -> None:
    assert EvaluateOptions().gate_dbfs == -60.0
    assert EvaluateOptions(protocol="reference").gate_dbfs == -math.inf
    assert EvaluateOptions(protocol="reference", silence_dbfs=-50.0).gate_dbfs == -50.0


def test_examples_are_the_worst_and_the_best_videos(model: LoadedModel, scored: Path) -> None:
    results = score(model, scored)[0].results
    ranked = [result.gated.original.miou for result in pick_examples(results)]
    assert ranked == sorted(result.gated.original.miou for result in results)
    many = [replace(result, index=k) for k, result in enumerate(results * 5)]
    assert len({result.index for result in pick_examples(many)}) == 8


def test_mask_paths_follow_avsbench(scored: Path) -> None:
    clip = open_split(scored, "s4", "test")[0]
    path = Path("test", str(clip.category), clip.name, f"{clip.name}_3.png")
    assert mask_path(clip, 2) == path
    root = scored / "Single-source" / "s4_data" / "gt_masks"
    assert clip.masks[2] == root / path


def test_two_processes_give_identical_scores(
    tiny_model: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def arguments(name: str) -> list[str]:
        out = ["--csv", str(tmp_path / f"{name}.csv"), "--save-masks", str(tmp_path / name)]
        inputs = ["--data", str(scored), "--audio", "noise", "--model", str(tiny_model)]
        return ["evaluate", *inputs, "--device", "cpu", "--json", *out]

    assert main(arguments("one")) == 0
    one = capsys.readouterr().out
    command = [sys.executable, "-m", "av2tsam_cli", *arguments("two"), "--devices", "2"]
    two = run(command, capture_output=True, text=True, timeout=500, check=False)  # noqa: S603 - our own
    assert two.returncode == 0, two.stderr
    assert two.stdout == one
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    masks = [
        {path.name: path.read_bytes() for path in files(tmp_path / name, "*.png")}
        for name in ("one", "two")
    ]
    assert masks[0] == masks[1]
    assert len(masks[0]) == 15
