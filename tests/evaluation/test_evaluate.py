"""Scores of a model: against plain counting, with negative sound, and from several processes."""

import math
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import run  # the other processes of one evaluation
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.data.avsbench import Clip, open_split, read_frames, read_masks, read_windows
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.evaluation.evaluate import Masked, evaluate, plan_evaluation, score_jobs
from av2tsam_cli.evaluation.evaluation import EvaluateOptions, Evaluation
from av2tsam_cli.evaluation.metrics import ScoringProtocol
from av2tsam_cli.evaluation.negative_audio import draw_donors, noise
from av2tsam_cli.evaluation.report import mask_place, pick_examples
from av2tsam_cli.inference.device import own_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.model.prediction import best_mask
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions

BoolArray = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 with three test videos, one of them with nothing that sounds in view; only read."""
    out = tmp_path_factory.mktemp("scored")
    write_dataset(out, subset="s4", videos=3, seed=4, split_sizes=(0, 0, 3), workers=1)
    return out


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MS3 with two videos to learn from and two to be scored on, one of which falls silent."""
    out = tmp_path_factory.mktemp("lessons")
    write_dataset(out, subset="ms3", videos=4, seed=5, split_sizes=(2, 2, 0), workers=1)
    path = open_split(out, "ms3", "val")[0].sound
    with wave.open(str(path)) as file:
        made, samples = file.getparams(), bytearray(file.readframes(file.getnframes()))
    end = len(samples) * 7 // 10 // 2 * 2  # early, as resampling rings on for a moment
    samples[end:] = bytes(len(samples) - end)
    with wave.open(str(path), "wb") as file:
        file.setparams(made)
        file.writeframes(samples)
    return out


@pytest.fixture
def spoilt(scored: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(scored, tmp_path / "spoilt"))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where embeddings are kept unless another folder is named."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AV2TSAM_HOME", str(home))
        yield home / "embeddings"


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model, device="cpu", precision="fp32")


def score(model: LoadedModel, data: Path, **options: Any) -> tuple[Evaluation, dict[str, Masked]]:
    """An evaluation, and the videos of which it told, by name."""
    kept: dict[str, Masked] = {}
    asked = EvaluateOptions(data=str(data), **options)
    evaluation = evaluate(
        model,
        asked,
        plan_evaluation(asked),
        keep=lambda one: kept.update({one.result.clip.name: one}),
    )
    return evaluation, kept


def figures(model: LoadedModel, data: Path, **options: Any) -> dict[str, Any]:
    return score(model, data, **options)[0].to_json(EvaluateOptions(data=str(data), **options))


def logits_of(model: LoadedModel, clip: Clip) -> torch.Tensor:
    """Logits (T, H, W) of a video as the paper makes them, a frame at a time."""
    network = model.network
    frames, masks = read_frames(clip, clip.labelled), read_masks(clip, clip.labelled)
    windows = read_windows(clip, clip.labelled, network.clap.config.rate_hz)
    rows = []
    for rgb, window in zip(frames, windows, strict=True):
        pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            heard = network.embed_windows(torch.from_numpy(window)[None])
            made = network(*network.prepare(pixels), network.embed_frames(pixels), heard)
            rows.append(network.text_sam.resize(best_mask(made), masks.shape[1:])[0, 0])
    return torch.stack(rows)


def counted_iou(found: BoolArray, true: BoolArray) -> float:
    """Of one frame, by AVSBench's rule for empty truths."""
    if not true.any():
        return float(np.mean(~found))
    return float(np.sum(found & true) / np.sum(found | true))


def counted_f(scores: npt.NDArray[Any], true: BoolArray) -> float:
    """Of one video, threshold by threshold."""
    rows = [row for row in zip(scores, true, strict=True) if row[1].any()]
    curve = []
    for threshold in torch.linspace(0, 1 - 1e-10, 255).tolist():
        values = []
        for one, mask in rows:
            found = one >= threshold
            hits = np.sum(found & mask)
            precision, recall = hits / max(found.sum(), 1e-20), hits / mask.sum()
            values.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
        curve.append(np.mean(values) if values else 0.0)
    return float(max(curve))


def test_miou_is_what_counting_the_masks_gives(model: LoadedModel, scored: Path) -> None:
    evaluation, kept = score(model, scored)
    truths = {
        clip.name: read_masks(clip, clip.labelled) for clip in open_split(scored, "s4", "test")
    }
    assert any(not truth.any() for truth in truths.values())
    expected = [
        np.mean([counted_iou(*pair) for pair in zip(kept[n].masks.numpy(), truths[n], strict=True)])
        for n in truths
    ]
    record = evaluation.to_json(EvaluateOptions(data=str(scored)))
    assert record["miou"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert [r.gated.original.miou for r in evaluation.results] == pytest.approx(expected, abs=1e-6)
    assert (record["videos"], record["frames"]) == (3, 15)
    assert sum(category["videos"] for category in record["categories"].values()) == 3


@pytest.mark.parametrize("protocol", ScoringProtocol)
def test_f_is_that_of_the_network_run_frame_by_frame(
    model: LoadedModel, scored: Path, protocol: ScoringProtocol
) -> None:
    expected = []
    for clip in open_split(scored, "s4", "test"):
        logits = logits_of(model, clip)
        scores = logits.sigmoid() if protocol is ScoringProtocol.AVSBENCH else logits
        expected.append(counted_f(scores.numpy(), read_masks(clip, clip.labelled)))
    record = figures(model, scored, protocol=protocol)
    assert record["protocol"] == protocol
    assert record["f_score"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_the_protocols_differ_in_f_alone(model: LoadedModel, scored: Path) -> None:
    avsbench, reference = (
        figures(model, scored, protocol=protocol) for protocol in ScoringProtocol
    )
    assert avsbench["miou"] == reference["miou"]
    assert avsbench["f_score"] != reference["f_score"]


def test_small_batches_change_nothing_but_last_bits(model: LoadedModel, scored: Path) -> None:
    one, many = (figures(model, scored, batch_size=size) for size in (1, 64))
    assert one["miou"] == pytest.approx(many["miou"], abs=1e-3)
    assert one["f_score"] == pytest.approx(many["f_score"], abs=1e-3)


def test_silence_gives_empty_masks_by_rule_and_the_network_alone_is_reported_beside(
    model: LoadedModel, scored: Path
) -> None:
    evaluation, kept = score(model, scored, audio="silence")
    record = evaluation.to_json(EvaluateOptions(data=str(scored), audio="silence"))
    assert not any(bool(one.masks.any()) for one in kept.values())
    assert (record["fpr"], record["negative"]["frames_found"]) == (0.0, 0.0)
    # In one of the three videos nothing sounds: there an empty mask is what AVSBench scores with 1.
    assert record["negative"]["miou"] == pytest.approx(1 / 3)
    assert record["silent_frames"] == 15
    alone = figures(model, scored, audio="silence", silence_dbfs=-math.inf)
    assert alone["fpr"] > 0.1  # the tiny network marks about half of whatever it is shown
    assert record["ungated"] == {name: alone[name] for name in record["ungated"]}
    assert "ungated" not in alone


def test_negative_sound_is_judged_as_in_avsbench_robust(model: LoadedModel, scored: Path) -> None:
    original = figures(model, scored)
    evaluation, kept = score(model, scored, audio="noise")
    record = evaluation.to_json(EvaluateOptions(data=str(scored), audio="noise"))
    shares = [one.masks.float().mean((1, 2)).mean() for one in kept.values()]
    assert record["fpr"] == pytest.approx(float(np.mean(shares)), abs=1e-6)
    assert record["positive"] == {name: original[name] for name in ("miou", "f_score")}
    pairs = [(one.masks.numpy(), one.samples[0].masks.numpy()) for one in kept.values()]
    overlaps = [np.mean([counted_iou(*p) for p in zip(*pair, strict=True)]) for pair in pairs]
    assert record["negative"]["miou"] == pytest.approx(np.mean(overlaps), abs=1e-6)
    good, bad = record["positive"]["miou"], record["negative"]["miou"]
    assert record["miou"] == pytest.approx(2 * good * (1 - bad) / (good + 1 - bad))


def test_the_same_seed_makes_the_same_noise_however_much_is_scored(
    model: LoadedModel, scored: Path
) -> None:
    whole, _ = score(model, scored, audio="noise", seed=1)
    part, _ = score(model, scored, audio="noise", seed=1, limit=2)
    other, _ = score(model, scored, audio="noise", seed=2)
    assert part.results == whole.results[:2]
    assert other.results != whole.results
    heard = noise(1, 8_000, np.random.default_rng(0))[0]
    assert np.histogram(heard, 4, (-1, 1))[0] == pytest.approx(2_000, rel=0.1)


def clips(*categories: str | None, subset: Any = "s4") -> list[Clip]:
    return [
        Clip(f"v{k}", kind, "test", subset, frames=(), masks=(), sound=Path(f"{k}.wav"))
        for k, kind in enumerate(categories)
    ]


def test_sound_from_elsewhere_is_of_another_category() -> None:
    s4 = clips(*("playing_piano", "playing_tabla", "dog") * 5)
    assert all(d.category != c.category for c, d in zip(s4, draw_donors(s4, 0), strict=True))
    assert draw_donors(s4, 0) == draw_donors(s4, 0) != draw_donors(s4, 1)
    several = clips("man_dog", "man_piano", "piano_car", "dog_car", subset="avss")
    found = [donor.category for donor in draw_donors(several, 0)]
    assert found == ["piano_car", "dog_car", "man_dog", "man_piano"]
    far = clips("playing_piano", "playing_violin", "male_speech", "dog_barking")
    found = [donor.category for donor in draw_donors(far, 0)]
    # Neither another instrument, nor a voice for one, as in AVSBench-Robust.
    assert found[:3] == ["dog_barking", "dog_barking", "dog_barking"]
    assert found[3] in {"playing_piano", "playing_violin"}
    near = clips("playing_piano", "playing_violin")
    assert [d.name for d in draw_donors(near, 0)] == ["v1", "v0"]  # rather than none
    unnamed = clips(None, None, None, subset="ms3")
    assert all(d.name != c.name for c, d in zip(unnamed, draw_donors(unnamed, 0), strict=True))
    with pytest.raises(UsageError, match="no video whose sound v0 could get"):
        draw_donors(clips("dog", "dog"), 0)


def test_sound_from_elsewhere_is_that_of_the_other_video(model: LoadedModel, scored: Path) -> None:
    _, kept = score(model, scored, audio="offscreen")
    for one in kept.values():
        donor, (own, negative) = one.job.donor, one.samples
        assert donor is not None
        own_sound = kept[donor.name].samples[0].embeddings
        assert torch.equal(negative.embeddings.clap, own_sound.clap)
        assert torch.equal(negative.embeddings.level_dbfs, own_sound.level_dbfs)
        assert torch.equal(negative.embeddings.clip, own.embeddings.clip)


def test_sound_from_elsewhere_may_be_of_seconds_that_have_no_label(
    model: LoadedModel, avss: Path
) -> None:
    """A video of ten labelled seconds gets the sound of one of five, of which one is labelled."""
    (evaluation, kept) = score(model, avss, subset="avss", split="train", audio="noise")
    job = replace(kept["four"].job, donor=kept["one"].job.clip)
    options = EvaluateOptions(data=str(avss), subset="avss", split="train", audio="offscreen")
    (one,) = score_jobs(model, options, [job])
    assert isinstance(one, Masked)
    assert job.donor is not None
    windows = read_windows(job.donor, [0, 1, 2, 3, 4] * 2, model.network.clap.config.rate_hz)
    heard = model.network.embed_windows(torch.from_numpy(windows)).detach()
    torch.testing.assert_close(one.samples[1].embeddings.clap, heard)
    assert len(evaluation.results) == 2


def test_the_references_sound_is_both_channels_one_after_the_other(
    model: LoadedModel, spoilt: Path, write_wav: Callable[..., Path]
) -> None:
    for clip in open_split(spoilt, "s4", "test"):
        write_wav(clip.sound, np.tile([[0.25], [-0.5]], 80_000))
    (reference,) = score(model, spoilt, reference_audio=True, limit=1)[1].values()
    (mono,) = score(model, spoilt, limit=1)[1].values()
    # A second of the left channel, then one of the right; otherwise their mean.
    both = np.sqrt((0.25**2 + 0.5**2) / 2)
    expected = [20 * np.log10(level) for level in (both, 0.125)]
    found = [float(one.samples[0].embeddings.level_dbfs[2]) for one in (reference, mono)]
    assert found == pytest.approx(expected, abs=0.01)


def test_embeddings_are_computed_once_and_change_no_digit(
    model: LoadedModel, scored: Path, tmp_path: Path
) -> None:
    def evaluated(audio: str, threads: int = 1) -> tuple[Evaluation, set[str]]:
        stages: list[str] = []
        asked = EvaluateOptions(data=str(scored), audio=audio, cache=tmp_path)  # type: ignore[arg-type]
        plan = plan_evaluation(asked)
        with own_threads(threads):
            found = evaluate(model, asked, plan, progress=lambda name, *_: stages.append(name))
        return found, set(stages)

    for audio in ("noise", "offscreen"):
        cold, stages = evaluated(audio)
        assert stages == ({"embeddings", "videos"} if audio == "noise" else {"videos"})
        assert evaluated(audio) == (cold, {"videos"})
        for path in files(tmp_path, "*.npy"):
            path.unlink()
        assert evaluated(audio, threads=2) == (cold, {"embeddings", "videos"})


def test_what_a_training_embedded_is_not_embedded_again(
    tiny_model: Path, lessons: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    where: dict[str, Any] = {"data": str(lessons), "subset": "ms3", "cache": tmp_path / "cache"}
    begun = TrainOptions(
        out=tmp_path / "run", model=str(tiny_model), device="cpu", precision="fp32", epochs=3,
        lr=5e-3, **where,
    )  # fmt: skip
    best = train(begun)
    asked = EvaluateOptions(split="val", **where)
    trained = load_model(best.checkpoint, device="cpu", precision="fp32")
    evaluation = evaluate(
        trained, asked, plan_evaluation(asked), progress=lambda name, *_: told.append(name)
    )
    assert set(told) == {"videos"}
    record = evaluation.to_json(asked)
    assert record["silent_frames"] == 1
    assert record["miou"] == pytest.approx(best.best.val_miou, abs=1e-6)
    assert record["f_score"] == pytest.approx(best.best.val_f_score, abs=1e-6)
    assert record["ungated"]["miou"] != pytest.approx(best.best.val_miou, abs=1e-6)


def files(folder: Path, pattern: str) -> Iterator[Path]:
    return iter(sorted(folder.rglob(pattern)))


def shrink_mask(data: Path) -> Path:
    path = next(files(data / "Single-source/s4_data/gt_masks/test", "*000001_2.png"))
    path.write_bytes(cv2.imencode(".png", np.zeros((100, 224), np.uint8))[1].tobytes())
    return path


def lose_sound(data: Path) -> Path:
    shutil.rmtree(data / "Single-source/s4_data/raw_videos")
    path = next(files(data / "Single-source/s4_data/audio_wav/test", "*000001.wav"))
    path.unlink()
    return path


@pytest.mark.parametrize("spoil", [shrink_mask, lose_sound])
def test_a_damaged_video_is_named_and_stops_the_work_or_is_left_out(
    model: LoadedModel, spoilt: Path, spoil: Callable[[Path], Path]
) -> None:
    intact = [r for r in score(model, spoilt)[0].results if r.index != 1]
    path = spoil(spoilt)
    with pytest.raises(MediaError, match=str(path)):
        score(model, spoilt)
    evaluation, _ = score(model, spoilt, skip_bad=True)
    assert evaluation.skipped == ("s4_test_000001",)
    assert [r.gated for r in evaluation.results] == [r.gated for r in intact]


def test_sound_that_turns_out_damaged_late_is_also_left_out(
    model: LoadedModel, spoilt: Path
) -> None:
    """The video is whole; the one whose sound it gets is not scored, and so is not looked at."""
    asked = EvaluateOptions(data=str(spoilt), audio="offscreen", limit=1)
    (job,) = plan_evaluation(asked).jobs
    assert job.donor is not None
    job.donor.sound.write_bytes(b"nothing")
    with pytest.raises(MediaError, match=job.donor.name):
        evaluate(model, asked, plan_evaluation(asked))
    lenient = replace(asked, skip_bad=True)
    with pytest.raises(MediaError, match="all 1 videos are damaged"):
        evaluate(model, lenient, plan_evaluation(lenient))


@pytest.mark.parametrize("name", ["limit", "batch_size"])
def test_options_that_make_no_sense_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} 0"):
        EvaluateOptions(**options)


def test_the_gate_is_that_of_segment_but_for_the_reference() -> None:
    assert EvaluateOptions().gate_dbfs == -60.0
    assert EvaluateOptions(protocol=ScoringProtocol.REFERENCE).gate_dbfs == -math.inf
    assert (
        EvaluateOptions(protocol=ScoringProtocol.REFERENCE, silence_dbfs=-50.0).gate_dbfs == -50.0
    )


def test_examples_are_the_worst_and_the_best_each_once(model: LoadedModel, scored: Path) -> None:
    results = score(model, scored)[0].results
    ranked = [result.gated.original.miou for result in pick_examples(results)]
    assert ranked == sorted(result.gated.original.miou for result in results)
    many = [replace(result, index=k) for k, result in enumerate(results * 5)]
    assert len({result.index for result in pick_examples(many)}) == 8


def test_masks_lie_where_avsbench_has_them(scored: Path) -> None:
    clip = open_split(scored, "s4", "test")[0]
    place = Path("test", str(clip.category), clip.name, f"{clip.name}_3.png")
    assert mask_place(clip, 2) == place
    root = scored / "Single-source" / "s4_data" / "gt_masks"
    assert clip.masks[2] == root / place


def test_two_processes_give_the_digits_of_one(
    tiny_model: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def words(name: str) -> list[str]:
        out = ["--csv", str(tmp_path / f"{name}.csv"), "--save-masks", str(tmp_path / name)]
        what = ["--data", str(scored), "--audio", "noise", "--model", str(tiny_model)]
        return ["evaluate", *what, "--device", "cpu", "--json", *out]

    assert main(words("one")) == 0
    one = capsys.readouterr().out
    call = [sys.executable, "-m", "av2tsam_cli", *words("two"), "--devices", "2"]
    two = run(call, capture_output=True, text=True, timeout=500, check=False)  # noqa: S603 - our own
    assert two.returncode == 0, two.stderr
    assert two.stdout == one
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    masks = [
        {path.name: path.read_bytes() for path in files(tmp_path / name, "*.png")}
        for name in ("one", "two")
    ]
    assert masks[0] == masks[1]
    assert len(masks[0]) == 15
