"""Training: what it learns, how it is interrupted, and what does not change its result."""

import csv
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file

from av2tsam_cli.data.avsbench import open_split
from av2tsam_cli.data.batches import epoch_batches
from av2tsam_cli.data.cache import EmbeddingCache
from av2tsam_cli.data.samples import embed_from, read_sample
from av2tsam_cli.errors import Av2tsamError, Interrupted, MediaError, UsageError
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.training.loop import RunResult, train
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.progress import EpochRow, Nobody, StepRow

VIDEOS = 5
"""Not a multiple of the batch: the last batch is a short one."""
BATCH = 2
STEPS_PER_EPOCH = 3


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 and MS3 with five videos to learn from and two to be scored on."""
    out = tmp_path_factory.mktemp("lessons")
    for subset in ("s4", "ms3"):
        write_dataset(out, subset=subset, videos=7, seed=5, split_sizes=(VIDEOS, 2, 0), workers=1)
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


Make = Callable[..., TrainOptions]


@pytest.fixture(scope="module")
def make_options(lessons: Path, cache: Path, tiny_model: Path) -> Make:
    """Two short epochs of the tiny model; `make_options(out, lr=1e-3)` wants something else."""
    small = {"epochs": 2, "batch_size": BATCH, "lr": 1e-3, "subset": "ms3", "device": "cpu"}
    small["precision"] = "fp32"  # whatever this processor would choose

    def make(out: Path, **other: object) -> TrainOptions:
        values = {**small, "model": str(tiny_model), "data": str(lessons), "cache": cache, **other}
        return TrainOptions(out=out, **values)  # type: ignore[arg-type]

    return make


@pytest.fixture
def options(make_options: Make, tmp_path: Path) -> Make:
    """The same in the test's own folder: `options("name", lr=1e-3)`."""
    return lambda name="run", **other: make_options(tmp_path / name, **other)


@pytest.fixture(scope="module")
def plain(make_options: Make, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """What comes of the plain options; for reading only."""
    return train(make_options(tmp_path_factory.mktemp("plain") / "run"))


def losses(out: Path) -> list[float]:
    with (out / "steps.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def metadata(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        return {
            name: json.loads(text) for name, text in file.metadata().items() if name != "format"
        }


class Sends(Nobody):
    """Sends this process a signal at one step, or while a video is scored."""

    def __init__(self, number: int, *, step: int | None = None, scored: int | None = None) -> None:
        self.number, self.at_step, self.at_scored = number, step, scored

    def step(self, row: StepRow, videos: int) -> None:
        del videos
        if row.step == self.at_step:
            os.kill(os.getpid(), self.number)

    def validating(self, done: int, total: int) -> None:
        del total
        if done == self.at_scored:
            self.at_scored = None
            os.kill(os.getpid(), self.number)


def test_a_handful_of_videos_is_learnt(options: Make, tiny_model: Path) -> None:
    result = train(options(epochs=12, lr=3e-3, model=str(tiny_model)))
    means = [row.loss for row in result.epochs]
    assert means[-1] < 0.8 * means[0]
    assert len(losses(result.out)) == 12 * STEPS_PER_EPOCH == result.steps
    for name in ("run.json", "epochs.csv", "curves.png", "last.safetensors"):
        assert (result.out / name).stat().st_size > 0


def test_only_what_the_paper_trains_changes(options: Make, tiny_model: Path) -> None:
    result = train(options(epochs=1, init="model"))
    before, after = load_file(tiny_model), load_file(result.checkpoint)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    network = load_network(tiny_model)
    trained = {name for name, _ in network.trained_parameters()}
    untouched = {name for name in trained if "iou_prediction_head" in name}
    assert trained - changed == untouched  # no loss reaches the head that predicts IoU
    assert changed <= trained


def test_the_best_checkpoint_is_that_of_the_best_epoch(options: Make) -> None:
    result = train(options(epochs=4, lr=5e-3))
    assert result.best == max(result.epochs, key=lambda row: row.val_miou)
    said = metadata(result.checkpoint)["metrics"]
    assert isinstance(said, dict)
    assert said["miou"] == result.best.val_miou
    assert said["protocol"] == "avsbench"


def test_the_training_of_s4_has_one_labelled_second_and_ms3_five(
    lessons: Path, cache: Path, tiny_model: Path
) -> None:
    network = load_network(tiny_model)
    for subset, seconds in (("s4", 1), ("ms3", 5)):
        clips = open_split(lessons, subset, "train")
        embed = embed_from(EmbeddingCache.open_or_build(cache, network, clips))
        sample = read_sample(clips[0], network.config, embed)
        assert len(sample.frames) == len(sample.masks) == len(sample.embeddings.clap) == seconds


@pytest.mark.parametrize(
    ("number", "where"),
    [
        (signal.SIGTERM, {"step": 1}),
        (signal.SIGINT, {"step": STEPS_PER_EPOCH + 1}),
        (signal.SIGTERM, {"step": STEPS_PER_EPOCH}),
        (signal.SIGTERM, {"scored": 1}),
    ],
    ids=["first epoch", "second epoch", "end of epoch", "while scoring"],
)
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(
    number: signal.Signals, where: dict[str, int], options: Make, plain: RunResult
) -> None:
    with pytest.raises(Interrupted, match="--resume"):
        train(options("parts"), Sends(number, **where))
    assert (options("parts").out / "last.safetensors").exists()
    result = train(options("parts", resume=True))
    assert losses(result.out) == losses(plain.out)
    assert [_scores(row) for row in result.epochs] == [_scores(row) for row in plain.epochs]
    ours, theirs = load_file(result.checkpoint), load_file(plain.checkpoint)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _scores(row: EpochRow) -> tuple[float, ...]:
    return (row.epoch, row.step, row.lr, row.loss, row.val_miou, row.val_f_score)


def test_steps_after_the_saved_state_are_done_again(options: Make, plain: RunResult) -> None:
    # As when the machine goes down: the state is older than the numbers.
    result = train(options("parts", max_steps=2))
    assert result.steps == 2
    with (result.out / "steps.csv").open("a") as file:
        file.write("3,1,9.0,0.001,1.0\n4,2,9.")
    assert train(options("parts", resume=True)).steps == 2 * STEPS_PER_EPOCH
    assert losses(result.out) == losses(plain.out)


def test_the_number_of_steps_can_be_limited(options: Make) -> None:
    result = train(options(max_steps=STEPS_PER_EPOCH + 1))
    assert [row.step for row in result.epochs] == [STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1]
    again = train(options(max_steps=STEPS_PER_EPOCH + 1, resume=True))
    assert again.epochs == result.epochs


def test_a_loss_that_is_no_number_stops_with_the_videos_named(options: Make, lessons: Path) -> None:
    with pytest.raises(Av2tsamError, match="step 2, epoch 1") as caught:
        train(options(lr=1e30))
    clips = open_split(lessons, "ms3", "train")
    batch = epoch_batches(VIDEOS, BATCH, seed=123, epoch=0)[1]
    assert all(clips[place].name in str(caught.value) for place in batch)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("other", [{"accumulate": 2}, {"workers": 1}, {"recompute": True}])
def test_how_a_batch_is_worked_on_does_not_change_the_result(
    other: dict[str, int], options: Make, plain: RunResult
) -> None:
    result = train(options(**other))
    assert losses(result.out) == pytest.approx(losses(plain.out), rel=1e-4)


def test_two_processes_do_what_one_does(options: Make) -> None:
    # Not to the last bit: sums over a batch are then sums of two sums.
    one = options("one", epochs=1, subset="s4")
    alone = train(one)
    words = [
        "train", "--out", str(one.out.with_name("two")), "--data", one.data, "--subset", "s4",
        "--cache", str(one.cache), "--model", str(one.model), "--epochs", "1",
        "--batch-size", str(BATCH), "--lr", "1e-3", "--device", "cpu", "--devices", "2", "--json",
        "--precision", "fp32",
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "av2tsam_cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)  # one line, of the first process
    assert losses(Path(record["out"])) == pytest.approx(losses(alone.out), rel=1e-4)
    assert record["best"]["val_miou"] == pytest.approx(alone.best.val_miou, abs=1e-3)
    # One head and one row, of the first process, and no warnings.
    assert [line for line in done.stderr.splitlines() if not line.startswith("av2tsam: ")] == [
        line for line in done.stderr.splitlines() if "val mIoU" in line or line.endswith("best")
    ]
    assert done.stderr.count("val mIoU") == done.stderr.count("best\n") == 1


def test_sixteen_bits_train_as_well(options: Make, plain: RunResult) -> None:
    rough = train(options(precision="bf16"))
    assert losses(rough.out) == pytest.approx(losses(plain.out), rel=0.05)
    assert losses(rough.out) != losses(plain.out)


def test_image_features_from_the_cache_are_the_same(options: Make) -> None:
    fresh = train(options("fresh", adapter=False))
    cached = train(options("cached", adapter=False, cache_features=True))
    assert losses(cached.out) == pytest.approx(losses(fresh.out), rel=1e-4)


def test_a_gradient_can_be_shortened(options: Make, plain: RunResult) -> None:
    short = train(options(clip_norm=1e-9))
    assert losses(short.out)[0] == losses(plain.out)[0]
    assert losses(short.out)[1:] != losses(plain.out)[1:]


def test_a_network_can_be_handed_in(options: Make, tiny_model: Path) -> None:
    named = train(options("named", init="model", epochs=1))
    given = train(options("given", epochs=1), network=load_network(tiny_model))
    assert losses(given.out) == losses(named.out)


def test_fewer_videos_are_drawn_by_the_seed(options: Make) -> None:
    result = train(options(train_clips=3))
    assert result.steps == 2 * 2
    with pytest.raises(UsageError, match="only 5"):
        train(options("more", train_clips=6))


class Fills(Nobody):
    """Forbids files above a size from the second epoch on, as a disk that is full would."""

    def epoch_begins(self, epoch: int, epochs: int, videos: int) -> None:
        del epochs, videos
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def test_a_full_disk_costs_no_checkpoint(options: Make, plain: RunResult) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(MediaError, match="cannot be written") as caught:
            train(options(), Fills())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "--resume" in str(caught.value)
    out = options().out
    assert not list(out.glob("*.part"))
    for name in ("best", "last"):
        metrics = metadata(out / f"{name}.safetensors")["metrics"]
        assert isinstance(metrics, dict)
        assert metrics["epoch"] == 1
    result = train(options(resume=True))
    assert losses(result.out) == losses(plain.out)


def test_a_folder_in_which_another_process_trains_is_refused(options: Make) -> None:
    train(options(max_steps=1))
    with FileLock(options().out / ".lock"), pytest.raises(MediaError, match="in use") as caught:
        train(options(resume=True))
    assert caught.value.exit_code == 3


def test_a_run_is_neither_replaced_nor_continued_unasked(options: Make, tmp_path: Path) -> None:
    first = train(options(max_steps=1))
    kept = first.checkpoint.read_bytes()
    with pytest.raises(UsageError, match="--resume"):
        train(options())
    with pytest.raises(UsageError, match=r"begun with 0\.001"):
        train(options(resume=True, lr=2e-3))
    with pytest.raises(MediaError, match="not the videos"):
        train(options(resume=True, data=str(_other_data(tmp_path))))
    assert first.checkpoint.read_bytes() == kept
    assert train(options(overwrite=True, epochs=1)).steps == STEPS_PER_EPOCH
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="other things"):
        train(options("full", overwrite=True))
    with pytest.raises(UsageError, match="no run"):
        train(options("absent", resume=True))
    assert not (tmp_path / "absent").exists()


def _other_data(tmp_path: Path) -> Path:
    out = tmp_path / "other"
    write_dataset(out, subset="ms3", videos=2, seed=6, split_sizes=(1, 1, 0), workers=1)
    return out


def test_a_damaged_video_stops_or_is_left_out(
    options: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "damaged"
    write_dataset(data, subset="ms3", videos=4, seed=6, split_sizes=(3, 1, 0), workers=1)
    bad = open_split(data, "ms3", "train")[1]
    bad.frames[2].write_bytes(bad.frames[2].read_bytes()[:100])
    with pytest.raises(MediaError, match=bad.frames[2].name):
        train(options(data=str(data)))
    assert not options().out.exists()
    result = train(options(data=str(data), skip_bad=True, epochs=1))
    assert bad.name in caplog.text
    assert result.steps == 1  # two videos are left


def test_a_run_says_what_it_depends_on(options: Make) -> None:
    result: RunResult = train(options(epochs=1))
    record = json.loads((result.out / "run.json").read_text())
    given = dataclasses.asdict(options(epochs=1))
    assert {k: str(v) for k, v in record["options"].items()} == {
        k: str(v) for k, v in given.items()
    }
    assert record["environment"]["torch"] == torch.__version__.split("+")[0]
    assert record["data"]["videos"] == {"train": VIDEOS, "val": 2}
    assert record["network"]["projector"] == "mul"
    assert record["best"]["val_miou"] == result.best.val_miou
