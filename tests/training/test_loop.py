"""Training: results, resuming, processes, errors and the files of a run."""

import contextlib
import csv
import dataclasses
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from av2tsam_cli import __version__
from av2tsam_cli.data.avsbench import open_split
from av2tsam_cli.data.cache import EmbeddingCache
from av2tsam_cli.data.samples import epoch_batches, read_sample
from av2tsam_cli.errors import Av2tsamError, Interrupted, MediaError, UsageError
from av2tsam_cli.evaluation.evaluate import evaluate
from av2tsam_cli.evaluation.options import EvaluateOptions
from av2tsam_cli.evaluation.plan import plan_evaluation
from av2tsam_cli.evaluation.report import to_json
from av2tsam_cli.evaluation.scoring import (
    Scores,
    mean_scores,
    predict,
    score_video,
    silent_frames,
    suppress,
)
from av2tsam_cli.hub.checkpoint import load_network, save_network
from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.training.callback import EpochRow, StepRow, TrainingCallback
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.losses import mask_loss
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.record import environment
from av2tsam_cli.training.result import TrainResult
from av2tsam_cli.training.state import TrainingState
from av2tsam_cli.training.validation import SplitScores

VIDEOS = 5
"""Not a multiple of the batch size, so the last batch is smaller."""
BATCH = 2
STEPS_PER_EPOCH = 3


@pytest.fixture(autouse=True, scope="module")
def _no_curves() -> Iterator[None]:
    """Hide matplotlib: drawing an epoch takes longer than training it, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 and MS3 with five videos for training, two for validation and two for testing."""
    out = tmp_path_factory.mktemp("dataset")
    for subset in ("s4", "ms3"):
        write_dataset(out, subset=subset, videos=9, seed=5, split_sizes=(VIDEOS, 2, 2), workers=1)
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


Make = Callable[..., TrainOptions]


@pytest.fixture(scope="module")
def make_options(dataset: Path, cache: Path, tiny_model: Path) -> Make:
    """Return options of two short epochs of the tiny model: `make_options(out, lr=1e-3)`."""
    small = {"epochs": 2, "batch_size": BATCH, "lr": 1e-3, "subset": "ms3", "device": "cpu"}
    small |= {"precision": "fp32"}  # whatever `auto` means on this CPU
    small |= {"test": False}

    def make(out: Path, **other: object) -> TrainOptions:
        values = {**small, "model": str(tiny_model), "data": str(dataset), "cache": cache, **other}
        return TrainOptions(out=out, **values)  # type: ignore[arg-type]

    return make


@pytest.fixture
def options(make_options: Make, tmp_path: Path) -> Make:
    """Return the same in the test's own folder: `options("name", lr=1e-3)`."""
    return lambda name="run", **other: make_options(tmp_path / name, **other)


@pytest.fixture(scope="module")
def plain(make_options: Make, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The result of the unchanged options; tests must not write to it."""
    return train(make_options(tmp_path_factory.mktemp("plain") / "run"))


def losses(out: Path) -> list[float]:
    return column(out, "loss")


def column(out: Path, name: str) -> list[float]:
    with (out / "steps.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def run_json(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "run.json").read_text())
    return content


def metadata(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        return {
            name: json.loads(text) for name, text in file.metadata().items() if name != "format"
        }


class SignalSender(TrainingCallback):
    """Sends this process a signal after a step, or after a validation or test video."""

    def __init__(
        self,
        number: int,
        *,
        step: int | None = None,
        validated: int | None = None,
        tested: int | None = None,
    ) -> None:
        self.number, self.at_step = number, step
        self.at_validated, self.at_tested = validated, tested

    def on_step(self, row: StepRow, videos: int) -> None:
        del videos
        if row.step == self.at_step:
            os.kill(os.getpid(), self.number)

    def on_validation(self, done: int, total: int) -> None:
        del total
        if done == self.at_validated:
            self.at_validated = None
            os.kill(os.getpid(), self.number)

    def on_test(self, done: int, total: int) -> None:
        del total
        if done == self.at_tested:
            os.kill(os.getpid(), self.number)


def test_loss_falls_on_a_few_videos(options: Make, tiny_model: Path) -> None:
    result = train(options(epochs=12, lr=3e-3, model=str(tiny_model)))
    means = [row.loss for row in result.epochs]
    assert means[-1] < 0.8 * means[0]
    assert len(losses(result.out)) == 12 * STEPS_PER_EPOCH == result.steps
    for name in ("run.json", "epochs.csv", "last.safetensors"):
        assert (result.out / name).stat().st_size > 0


def test_only_the_parameters_that_the_paper_trains_change(options: Make, tiny_model: Path) -> None:
    result = train(options(epochs=1))
    before, after = load_file(tiny_model), load_file(result.checkpoint)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    network = load_network(tiny_model)
    trained = {name for name, _ in network.trained_parameters()}
    untouched = {name for name in trained if "iou_prediction_head" in name}
    assert trained - changed == untouched  # no gradient reaches the head that predicts IoU
    assert changed <= trained


def test_best_checkpoint_is_from_the_best_epoch(options: Make) -> None:
    result = train(options(epochs=4, lr=5e-3))
    assert result.best == max(result.epochs, key=lambda row: row.val_miou)
    metrics = metadata(result.checkpoint)["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["miou"] == result.best.val_miou
    assert metrics["protocol"] == "avsbench"


def test_s4_trains_on_one_second_per_video_and_ms3_on_five(
    dataset: Path, cache: Path, tiny_model: Path
) -> None:
    network = load_network(tiny_model)
    for subset, seconds in (("s4", 1), ("ms3", 5)):
        clips = open_split(dataset, subset, "train")
        embed = EmbeddingCache.open_or_build(cache, network, clips).read
        sample = read_sample(clips[0], network.config, embed)
        assert len(sample.frames) == len(sample.masks) == len(sample.embeddings.clap) == seconds


@pytest.mark.parametrize(
    ("number", "where"),
    [
        (signal.SIGTERM, {"step": 1}),
        (signal.SIGINT, {"step": STEPS_PER_EPOCH + 1}),
        (signal.SIGTERM, {"step": STEPS_PER_EPOCH}),
        (signal.SIGTERM, {"validated": 1}),
    ],
    ids=["first epoch", "second epoch", "end of epoch", "validation"],
)
def test_interrupted_run_resumes_with_identical_results(
    number: signal.Signals, where: dict[str, int], options: Make, plain: TrainResult
) -> None:
    with pytest.raises(Interrupted, match="`resume`"):
        train(options("interrupted"), SignalSender(number, **where))
    assert (options("interrupted").out / "last.safetensors").exists()
    result = train(options("interrupted", resume=True))
    assert losses(result.out) == losses(plain.out)
    assert [_scores(row) for row in result.epochs] == [_scores(row) for row in plain.epochs]
    ours, theirs = load_file(result.checkpoint), load_file(plain.checkpoint)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _scores(row: EpochRow) -> tuple[float, ...]:
    return (row.epoch, row.step, row.lr, row.loss, row.val_miou, row.val_f_score)


def test_steps_after_the_saved_state_are_repeated(options: Make, plain: TrainResult) -> None:
    # As after a power failure: steps.csv is ahead of the saved state, and its last row is cut off.
    result = train(options("interrupted", max_steps=2))
    assert result.steps == 2
    with (result.out / "steps.csv").open("a") as file:
        file.write("3,1,9.0,0.001,1.0\n4,2,9.")
    assert train(options("interrupted", resume=True)).steps == 2 * STEPS_PER_EPOCH
    assert losses(result.out) == losses(plain.out)


def test_max_steps_stops_within_an_epoch(options: Make) -> None:
    result = train(options(max_steps=STEPS_PER_EPOCH + 1))
    assert [row.step for row in result.epochs] == [STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1]
    again = train(options(max_steps=STEPS_PER_EPOCH + 1, resume=True))
    assert again.epochs == result.epochs


def test_completed_epoch_replaces_the_row_of_its_part(options: Make, plain: TrainResult) -> None:
    train(options(max_steps=1))
    second = train(options(max_steps=2, resume=True))
    assert [(row.step, row.complete, row.best) for row in second.epochs] == [(2, False, True)]
    result = train(options(resume=True))
    assert [_scores(row) for row in result.epochs] == [_scores(row) for row in plain.epochs]
    assert [row.best for row in result.epochs] == [row.best for row in plain.epochs]
    with (result.out / "epochs.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    ours, theirs = load_file(result.checkpoint), load_file(plain.checkpoint)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_part_of_an_epoch_is_the_best_only_if_no_epoch_is_complete() -> None:
    def validate(state: TrainingState, miou: float, *, complete: bool) -> TrainingState:
        scored = SplitScores(Scores(miou, miou, 1, 5), loss=1.0)
        return state.after_validation(1e-3, scored, 1.0, complete=complete)

    state = validate(TrainingState(), 0.9, complete=False)
    assert state.best == state.rows[0]
    state = validate(validate(state, 0.3, complete=True).next_epoch(), 0.8, complete=False)
    assert [(row.val_miou, row.best) for row in state.rows] == [(0.3, True), (0.8, False)]
    assert state.best == state.rows[0]


def test_loss_that_is_not_finite_stops_and_names_the_videos(options: Make, dataset: Path) -> None:
    with pytest.raises(Av2tsamError, match="step 2, epoch 1") as caught:
        train(options(lr=1e30))
    clips = open_split(dataset, "ms3", "train")
    batch = epoch_batches(VIDEOS, BATCH, seed=123, epoch=0)[1]
    assert all(clips[index].name in str(caught.value) for index in batch)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_that_is_not_finite_stops_before_the_step(
    precision: str, options: Make, tiny_model: Path
) -> None:
    network = load_network(tiny_model)
    name, parameter = list(network.trained_parameters())[-1]
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(Av2tsamError, match="gradient is nan at step 1, epoch 1"):
        train(options(precision=precision), network=network)
    assert torch.equal(parameter, before), name


@pytest.mark.parametrize(
    "other", [{"accumulate": 2}, {"workers": 1}, {"gradient_checkpointing": True}]
)
def test_options_for_speed_and_memory_do_not_change_the_result(
    other: dict[str, int], options: Make, plain: TrainResult
) -> None:
    result = train(options(**other))
    assert losses(result.out) == pytest.approx(losses(plain.out), rel=1e-4)


def free_port() -> int:
    """Return a port that the system does not give to the programs that ask for any free one."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", port))
            return port
    raise RuntimeError("no port is free")


def torchrun(*nodes: list[str], options: Sequence[str] = ()) -> list["subprocess.Popen[str]"]:
    """Start `av2tsam` with the words of each node by torchrun, as on so many machines."""
    port = free_port()
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(nodes))]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", *options]
    return [
        subprocess.Popen(  # noqa: S603 - our own command
            [*command, "-m", "av2tsam_cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for words in nodes
    ]


def words_of(options: TrainOptions, cache: Path) -> list[str]:
    """Return the command line of a short training in fp32 for one of two nodes."""
    return [
        "train", "--out", str(options.out), "--data", options.data, "--subset", options.subset,
        "--cache", str(cache), "--model", str(options.model), "--epochs", str(options.epochs),
        "--batch-size", str(BATCH), "--lr", "1e-3", "--device", "cpu", "--json",
        "--precision", "fp32",
    ]  # fmt: skip


def own_lines(text: str) -> list[str]:
    """Return the lines that av2tsam has written, not those of torchrun."""
    return [line for line in text.splitlines() if line.startswith("av2tsam: ")]


def test_two_nodes_give_the_same_result_as_one_process(options: Make, tmp_path: Path) -> None:
    # Up to rounding: the sum over a batch is then a sum of two partial sums.
    one = options("one", epochs=1, subset="s4", test=True)
    alone = train(one)
    two = dataclasses.replace(one, out=one.out.with_name("two"))
    caches = [tmp_path / "cache-1", tmp_path / "cache-2"]
    # The same command starts a run and, after a failure, restarts it.
    nodes = torchrun(*([*words_of(two, cache), "--resume"] for cache in caches))
    outputs = [node.communicate(timeout=500) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    record = json.loads("".join(stdout for stdout, _ in outputs))  # one line, from one node
    assert losses(Path(record["out"])) == pytest.approx(losses(alone.out), rel=1e-4)
    assert record["best"]["val_miou"] == pytest.approx(alone.best.val_miou, abs=1e-3)
    assert alone.test is not None
    assert record["test"]["videos"] == 2
    assert record["test"]["miou"] == pytest.approx(alone.test.miou, abs=1e-3)
    # One header and one row, and no warnings.
    stderr = "".join(stderr for _, stderr in outputs)
    assert own_lines(stderr) == [
        f"av2tsam: {two.out}: no run to resume yet; starting one",
        f"av2tsam: starting from {two.model}: all weights",
    ]
    assert stderr.count("val mIoU") == stderr.count("best\n") == 1
    assert all(any(cache.rglob("*.npy")) for cache in caches)


def worker_of(node: "subprocess.Popen[str]") -> int:
    """Return the number of the process that a torchrun has started."""
    return int(Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_training_restarts_where_it_was_when_a_node_died(options: Make, tmp_path: Path) -> None:
    chosen = options(epochs=40)
    words = [*words_of(chosen, tmp_path / "cache"), "--resume", "--no-test"]
    nodes = torchrun(words, words, options=["--max-restarts", "1"])
    steps = chosen.out / "steps.csv"
    while not steps.exists() or len(steps.read_text().splitlines()) < 8:
        time.sleep(0.1)
        assert [node.poll() for node in nodes] == [None, None]
    os.kill(worker_of(nodes[1]), signal.SIGKILL)
    stderr = "".join(node.communicate(timeout=500)[1] for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], stderr
    alone = train(options("alone", epochs=40))
    assert losses(chosen.out) == pytest.approx(losses(alone.out), rel=1e-2)
    assert f"{chosen.out}: continuing after step " in stderr


@pytest.mark.slow
def test_what_is_missing_on_one_node_ends_all_with_its_name(options: Make, tmp_path: Path) -> None:
    chosen = options()
    words = words_of(chosen, tmp_path / "cache")
    nodes = torchrun(words, [*words, "--data", str(tmp_path / "nothing")])
    lines = [own_lines(node.communicate(timeout=500)[1]) for node in nodes]
    assert [node.returncode for node in nodes] == [1, 1]
    assert [len(own) for own in lines] == [1, 1], lines
    assert all(f"{tmp_path / 'nothing'}: folder not found" in own[0] for own in lines)
    assert sum(f" on {platform.node()}: " in own[0] for own in lines) == 1
    assert not chosen.out.exists()


SLOW_TRAINING = """
import json, sys, time
from pathlib import Path
from safetensors import safe_open
from av2tsam_cli.training import loop
from av2tsam_cli.training.callback import TrainingCallback
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.record import environment
from av2tsam_cli.training.result import TrainResult

class Watcher(TrainingCallback):
    def on_step(self, row, videos):
        with safe_open(options.out / "resume.safetensors", "pt") as file:
            saved.append(json.loads(file.metadata()["state"])["position"]["step"])
        if row.step == 1:
            passed_s.append(1.3 * loop.SAVE_INTERVAL_S)

# The clock leaps instead of sleeping, so that slow steps on a busy machine make no difference.
passed_s, monotonic = [], time.monotonic
time.monotonic = lambda: monotonic() + sum(passed_s)
saved = []
options = TrainOptions.from_json(json.loads(sys.argv[1]))
loop.train(options, Watcher())
if saved:
    print(saved)
"""


def test_state_is_saved_once_per_interval_by_two_processes(options: Make, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SLOW_TRAINING)
    chosen = options(epochs=1, batch_size=1, subset="s4", devices=2).to_json()
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(script), json.dumps(chosen)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 1, 1, 1, 1]


def test_bf16_gives_similar_losses(options: Make, plain: TrainResult) -> None:
    bf16 = train(options(precision="bf16"))
    assert losses(bf16.out) == pytest.approx(losses(plain.out), rel=0.05)
    assert losses(bf16.out) != losses(plain.out)


def test_cached_image_features_give_the_same_losses(options: Make) -> None:
    fresh = train(options("fresh", adapter=False))
    cached = train(options("cached", adapter=False, cache_features=True))
    assert losses(cached.out) == pytest.approx(losses(fresh.out), rel=1e-4)


@pytest.mark.parametrize("other", [{"clip_norm": 1e-9}, {"weight_decay": 10.0}])
def test_options_of_the_optimiser_change_the_following_steps(
    other: dict[str, float], options: Make, plain: TrainResult
) -> None:
    result = train(options(epochs=1, **other))
    assert losses(result.out)[0] == losses(plain.out)[0]
    assert losses(result.out)[1] != losses(plain.out)[1]


def test_learning_rate_rises_in_the_warmup_and_then_follows_the_cosine(options: Make) -> None:
    result = train(options(warmup=4))
    high, low = (options().learning_rate(epoch, step=10) for epoch in (0, 1))
    expected = [high / 4, high / 2, high * 3 / 4, low, low, low]
    assert column(result.out, "lr") == pytest.approx(expected)
    assert [row.lr for row in result.epochs] == pytest.approx([high * 3 / 4, low])


def test_val_every_validates_each_nth_and_the_last_epoch(options: Make) -> None:
    with pytest.raises(Interrupted):
        train(options(epochs=3, val_every=2), SignalSender(signal.SIGTERM, step=STEPS_PER_EPOCH))
    result = train(options(epochs=3, val_every=2, resume=True))
    assert [row.epoch for row in result.epochs] == [2, 3]
    every = train(options("every", epochs=3))
    assert losses(result.out) == losses(every.out)
    assert [_scores(row) for row in result.epochs] == [_scores(row) for row in every.epochs[1:]]


def test_patience_stops_after_validations_without_a_higher_score(
    options: Make, caplog: pytest.LogCaptureFixture
) -> None:
    still = {"epochs": 9, "lr": 1e-20, "min_lr": 0.0, "patience": 2}
    result = train(options(**still))
    assert [row.best for row in result.epochs] == [True, False, False]
    assert result.stopped_early
    assert "stopped after epoch 3: no higher validation mIoU in 2 validations" in caplog.text
    assert run_json(result.out)["stopped_early"] is True
    assert train(options(**still, resume=True)).epochs == result.epochs
    with pytest.raises(UsageError, match="started with 2"):
        train(options(**{**still, "patience": 3}, resume=True))


class WeightRecorder(TrainingCallback):
    """Copies a trained weight after each step."""

    NAME = "text_sam.text_hidden_fcs.0.0.weight"

    def __init__(self, network: Av2tSam) -> None:
        self.weight = network.get_parameter(self.NAME)
        self.history = [self.weight.detach().clone()]

    def on_step(self, row: StepRow, videos: int) -> None:
        del row, videos
        self.history.append(self.weight.detach().clone())


def test_ema_validates_and_saves_the_average_of_the_weights(
    options: Make, tiny_model: Path
) -> None:
    network = load_network(tiny_model)
    recorder = WeightRecorder(network)
    result = train(options("ema", ema=0.8), recorder, network)
    average = recorder.history[0]
    for weight in recorder.history[1:]:
        average = 0.8 * average + 0.2 * weight
    saved = load_file(result.out / "last.safetensors")[recorder.NAME]
    assert torch.allclose(saved, average, atol=1e-6)
    assert not torch.allclose(saved, recorder.history[-1], atol=1e-4)
    raw = load_file(result.out / "resume.safetensors")[f"model:{recorder.NAME}"]
    assert torch.equal(raw, recorder.history[-1])
    # The steps are those of a run without it; the validation is that of the saved model.
    plain = train(options("raw"), network=load_network(tiny_model))
    assert losses(result.out) == losses(plain.out)
    data: dict[str, Any] = {"data": options().data, "subset": "ms3", "cache": options().cache}
    evaluate_options = EvaluateOptions(split="val", **data)
    model = load_model(result.checkpoint, device="cpu", precision="fp32")
    evaluation = evaluate(model, evaluate_options, plan_evaluation(evaluate_options))
    expected = to_json(evaluation, evaluate_options)
    assert result.best.val_miou == pytest.approx(expected["miou"], abs=1e-6)


@pytest.mark.parametrize("where", [{"step": 2}, {"validated": 1}], ids=["step", "validation"])
def test_run_with_ema_and_augmentation_resumes_with_identical_results(
    where: dict[str, int], options: Make
) -> None:
    other = {"ema": 0.8, "augment": True}
    whole = train(options("whole", **other))
    with pytest.raises(Interrupted):
        train(options("interrupted", **other), SignalSender(signal.SIGTERM, **where))
    result = train(options("interrupted", **other, resume=True))
    assert losses(result.out) == losses(whole.out)
    assert [_scores(row) for row in result.epochs] == [_scores(row) for row in whole.epochs]
    ours, theirs = (load_file(run.out / "last.safetensors") for run in (result, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_augmented_training_embeds_the_changed_frames(options: Make, tiny_model: Path) -> None:
    network = load_network(tiny_model)
    embedded: list[torch.Tensor] = []
    network.clip.register_forward_hook(lambda *call: embedded.append(call[2]))
    used: list[torch.Tensor] = []
    network.projector.register_forward_hook(lambda *call: used.append(call[1][0]))
    result = train(options(augment=True, epochs=1, max_steps=1), network=network)
    assert torch.equal(torch.cat(embedded[-BATCH:]), used[0])
    assert losses(result.out) != losses(train(options("off", epochs=1, max_steps=1)).out)


def test_training_scores_and_validation_loss_are_those_of_the_videos(
    options: Make, tiny_model: Path, dataset: Path, cache: Path
) -> None:
    # Without learning, all predictions are those of the initial network.
    network = load_network(tiny_model)
    (row,) = train(options(epochs=1, lr=1e-20, min_lr=0.0), network=network).epochs
    samples, logits = {}, {}
    for split in ("train", "val"):
        clips = open_split(dataset, "ms3", split)
        embed = EmbeddingCache.open_or_build(cache, network, clips).read
        samples[split] = [read_sample(clip, network.config, embed) for clip in clips]
        logits[split] = [predict(network, one, torch.device("cpu")) for one in samples[split]]
    silent = map(silent_frames, samples["train"])
    scores = mean_scores(map(score_video, samples["train"], map(suppress, logits["train"], silent)))
    assert row.train_miou == pytest.approx(scores.miou, abs=1e-5)
    assert row.train_f_score == pytest.approx(scores.f_score, abs=1e-5)
    masks = torch.cat([sample.masks for sample in samples["val"]])
    loss = mask_loss(torch.cat(logits["val"])[:, None], masks[:, None].float())
    assert row.val_loss == pytest.approx(float(loss), rel=1e-4)


def test_deterministic_runs_are_bit_identical(options: Make) -> None:
    class Check(TrainingCallback):
        def on_step(self, row: StepRow, videos: int) -> None:
            del row, videos
            assert torch.are_deterministic_algorithms_enabled()

    runs = [train(options(name, deterministic=True), Check()) for name in ("one", "two")]
    assert not torch.are_deterministic_algorithms_enabled()
    assert losses(runs[0].out) == losses(runs[1].out)
    assert [_scores(row) for row in runs[0].epochs] == [_scores(row) for row in runs[1].epochs]
    states = [load_file(run.out / "resume.safetensors") for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_loggers_receive_example_masks(options: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(options(epochs=1))
    events = EventAccumulator(str(result.out / "tensorboard"))
    events.Reload()
    clips = open_split(Path(options().data), "ms3", "val")
    assert events.Tags()["images"] == [f"val/{clip.name}" for clip in clips]
    (picture,) = events.Images(events.Tags()["images"][0])
    assert (picture.width, picture.height) == (5 * 160, 160)


def test_best_epoch_is_scored_on_the_test_split_as_by_evaluate(
    options: Make, dataset: Path, cache: Path
) -> None:
    result = train(options(epochs=3, lr=5e-3, test=True))
    data: dict[str, Any] = {"data": str(dataset), "subset": "ms3", "cache": cache}
    evaluate_options = EvaluateOptions(split="test", **data)
    model = load_model(result.checkpoint, device="cpu", precision="fp32")
    evaluation = evaluate(model, evaluate_options, plan_evaluation(evaluate_options))
    expected = to_json(evaluation, evaluate_options)
    assert result.test is not None
    assert result.test.miou == pytest.approx(expected["miou"], abs=1e-6)
    assert result.test.f_score == pytest.approx(expected["f_score"], abs=1e-6)
    assert run_json(result.out)["test"] == {
        "split": "test",
        "videos": 2,
        "miou": result.test.miou,
        "f_score": result.test.f_score,
        "epoch": result.best.epoch,
        "protocol": expected["protocol"],
    }


def test_interrupted_test_is_done_when_the_run_is_resumed(options: Make) -> None:
    # The last epoch is not the best one, so the state must not have the weights that are tested.
    wanted = {"epochs": 4, "lr": 0.05, "test": True}
    whole = train(options("whole", **wanted))
    assert not whole.epochs[-1].best
    with pytest.raises(Interrupted, match="`resume`"):
        train(options(**wanted), SignalSender(signal.SIGTERM, tested=1))
    interrupted = run_json(options().out)
    assert interrupted["best"]["epoch"] == whole.best.epoch
    assert interrupted["test"] is None
    states = [load_file(options(name).out / "resume.safetensors") for name in ("run", "whole")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    result = train(options(**wanted, resume=True))
    assert result.test == whole.test
    assert run_json(result.out)["ended"] is not None


def test_data_without_a_test_split_are_noted(
    options: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(options(data=str(_other_data(tmp_path)), epochs=1, test=True))
    assert result.test is None
    assert run_json(result.out)["test"] is None
    assert "has no test split" in caplog.text


def test_network_can_be_passed_in(options: Make, tiny_model: Path) -> None:
    named = train(options("named", epochs=1))
    given = train(options("given", epochs=1), network=load_network(tiny_model))
    assert losses(given.out) == losses(named.out)


def test_train_clips_limits_the_training_videos(options: Make) -> None:
    result = train(options(train_clips=3))
    assert result.steps == 2 * 2
    with pytest.raises(UsageError, match="only 5"):
        train(options("more", train_clips=6))


class DiskFiller(TrainingCallback):
    """Limits the size of files from the second epoch on, which has the effect of a full disk."""

    def on_epoch_start(self, epoch: int, epochs: int, videos: int) -> None:
        del epochs, videos
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


# TensorBoard's own thread fails too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_keeps_earlier_checkpoints(options: Make, plain: TrainResult) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(MediaError, match="cannot be written") as caught:
            train(options(), DiskFiller())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "`resume`" in str(caught.value)
    out = options().out
    assert not list(out.glob("*.part"))
    for name in ("best", "last"):
        metrics = metadata(out / f"{name}.safetensors")["metrics"]
        assert isinstance(metrics, dict)
        assert metrics["epoch"] == 1
    result = train(options(resume=True))
    assert losses(result.out) == losses(plain.out)


def test_folder_in_use_by_another_training_is_refused(options: Make) -> None:
    train(options(max_steps=1))
    with FileLock(options().out / ".lock"), pytest.raises(MediaError, match="in use") as caught:
        train(options(resume=True))
    assert caught.value.exit_code == 3


def test_existing_run_is_replaced_or_resumed_only_on_request(options: Make, tmp_path: Path) -> None:
    first = train(options(max_steps=1))
    kept = first.checkpoint.read_bytes()
    with pytest.raises(UsageError, match="`resume`"):
        train(options())
    with pytest.raises(UsageError, match=r"started with 0\.001"):
        train(options(resume=True, lr=2e-3))
    with pytest.raises(MediaError, match="not the train split"):
        train(options(resume=True, data=str(_other_data(tmp_path))))
    assert first.checkpoint.read_bytes() == kept
    assert train(options(overwrite=True, epochs=1)).steps == STEPS_PER_EPOCH
    (first.checkpoint.parent / "tensorboard").rename(tmp_path / "moved")
    (first.checkpoint.parent / "tensorboard").symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError, match="leads out of the run"):
        train(options(resume=True))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        train(options("full", overwrite=True))
    with pytest.raises(UsageError, match="no run to resume"):
        train(options("absent", resume=True))
    assert not (tmp_path / "absent").exists()


def _other_data(tmp_path: Path) -> Path:
    out = tmp_path / "other"
    write_dataset(out, subset="ms3", videos=2, seed=6, split_sizes=(1, 1, 0), workers=1)
    return out


def test_changed_content_of_the_data_is_refused_on_resume(options: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_dataset(data, subset="ms3", videos=3, seed=6, split_sizes=(1, 1, 1), workers=1)
    run = train(options(data=str(data), max_steps=1, test=True))
    record = json.loads((run.out / "run.json").read_text())
    assert record["data"]["sha256"].keys() == {"train", "val", "test"}
    (train_clip,), (val_clip,), (test_clip,) = (
        open_split(data, "ms3", split) for split in ("train", "val", "test")
    )
    files = {"train": train_clip.sound, "val": val_clip.masks[2], "test": test_clip.frames[2]}
    for split, path in files.items():
        assert path is not None
        original = path.read_bytes()
        _change(path)
        with pytest.raises(MediaError, match=rf"not the {split} split .* or sound have changed"):
            train(options(data=str(data), resume=True, test=True))
        path.write_bytes(original)  # the time of a change does not matter
    assert train(options(data=str(data), max_steps=1, resume=True)).steps == 1


def _change(path: Path) -> None:
    """Change one sample of a WAV file, or the first pixel of an image."""
    if path.suffix == ".wav":
        path.write_bytes(path.read_bytes()[:-2] + b"\x01\x00")
        return
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


def test_starting_weights_are_recorded_and_changed_ones_refused_on_resume(
    options: Make, tiny_model: Path, tmp_path: Path
) -> None:
    def digest(name: str) -> str:
        text = (options(name).out / "run.json").read_text()
        return str(json.loads(text)["start"]["sha256"])

    model = tmp_path / "model.safetensors"
    model.write_bytes(tiny_model.read_bytes())
    for name, other in (("one", {}), ("same", {}), ("new", {"init": "paper"})):
        train(options(name, model=str(model), max_steps=1, **other))
    assert len(digest("one")) == 64
    assert digest("one") == digest("same") != digest("new")
    network = load_network(model)
    with torch.no_grad():
        next(network.text_sam.beit3.parameters()).mul_(1.01)
    save_network(network, model)
    with pytest.raises(UsageError, match=r"`model` .*model\.safetensors: not the weights"):
        train(options("one", model=str(model), resume=True))


def test_corrupted_video_stops_training_or_is_skipped(
    options: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "corrupted"
    write_dataset(data, subset="ms3", videos=4, seed=6, split_sizes=(3, 1, 0), workers=1)
    bad = open_split(data, "ms3", "train")[1]
    bad.frames[2].write_bytes(bad.frames[2].read_bytes()[:100])
    with pytest.raises(MediaError, match=bad.frames[2].name):
        train(options(data=str(data)))
    assert not options().out.exists()
    result = train(options(data=str(data), skip_bad=True, epochs=1))
    assert bad.name in caplog.text
    assert result.steps == 1  # a batch of the two intact videos


def test_packages_that_are_not_installed_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av2tsam_cli.training.record.PACKAGES", ("torch", "no-such-package"))
    found = environment(torch.device("cpu"))
    assert found["torch"]
    assert found["no-such-package"] is None


def test_run_json_records_options_versions_and_data(options: Make) -> None:
    result: TrainResult = train(options(epochs=1))
    record = json.loads((result.out / "run.json").read_text())
    given = dataclasses.asdict(options(epochs=1))
    assert record["start"]["checkpoint"] == given["model"]
    assert record["start"]["initialised"] == []
    assert {k: str(v) for k, v in record["options"].items()} == {
        k: str(v) for k, v in given.items()
    }
    assert record["environment"]["torch"] == torch.__version__.split("+")[0]
    assert record["environment"]["av2tsam"] == __version__
    assert record["data"]["videos"] == {"train": VIDEOS, "val": 2, "test": 0}
    assert record["network"]["projector"] == "mul"
    assert record["best"]["val_miou"] == result.best.val_miou


def test_run_json_records_the_precision_and_model_that_auto_stands_for(options: Make) -> None:
    result = train(options(precision="auto", max_steps=1, model=None))
    record = json.loads((result.out / "run.json").read_text())
    assert record["options"]["precision"] in {"fp32", "bf16"}
    assert record["options"]["model"] == "nano"
    assert record["start"]["model"] == "nano"
