"""The words route in an evaluation, with nano on generated scenes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.errors import UsageError
from av2tsam_cli.evaluation.evaluate import EvaluatedVideo, evaluate_videos
from av2tsam_cli.evaluation.options import EvaluateOptions
from av2tsam_cli.evaluation.plan import plan_evaluation
from av2tsam_cli.evaluation.routes import Prediction, WordsRoute, choose_names, label_name
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.words.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two test videos of S4 and of AVSBench-semantic."""
    out = tmp_path_factory.mktemp("data")
    for subset in ("s4", "avss"):
        write_dataset(out, subset=subset, videos=2, seed=0, split_sizes=(0, 0, 2), workers=1)
    return out


@pytest.fixture(scope="module")
def nano() -> LoadedModel:
    return load_model("nano", use="words", device="cpu", precision="fp32")


def run(data: Path, capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Run `av2tsam evaluate` and return its JSON object."""
    arguments = ["evaluate", "--data", str(data), *map(str, words), "--json"]
    assert main(arguments) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


def evaluated(model: LoadedModel, options: EvaluateOptions) -> Sequence[EvaluatedVideo]:
    plan = plan_evaluation(options)
    videos = evaluate_videos(model, options, plan, plan.videos)
    return [video for video in videos if isinstance(video, EvaluatedVideo)]


def test_names_are_scored_on_s4(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", "nano", "--device", "cpu", "--hear", "words")
    record = run(data, capsys, *model)
    assert record["hear"] == "words"
    assert record["miou"] > 0.5
    assert record["naming"]["f1"] > 0.8
    assert "class_miou" not in record


def test_saved_colour_masks_score_as_the_words_route(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, subset = tmp_path / "masks", ("--subset", "avss")
    model = ("--model", "nano", "--device", "cpu", "--hear", "words")
    original = run(data, capsys, *subset, *model, "--save-masks", masks)
    assert original["unused_names"] == []
    assert original["present_class_miou"] > 0.3
    assert set(original["classes"]) > {"background", "siren"}
    again = run(data, capsys, *subset, "--predictions", masks)
    for name in ("miou", "j", "class_miou", "class_f_score", "naming"):
        assert again[name] == pytest.approx(original[name], abs=1e-6)
    assert again["classes"] == original["classes"]


def test_the_words_route_hears_the_negative_audio(nano: LoadedModel, data: Path) -> None:
    (own,) = evaluated(nano, EvaluateOptions(data=str(data), limit=1))
    (silent,) = evaluated(nano, EvaluateOptions(data=str(data), limit=1, audio="silence"))
    (noisy,) = evaluated(nano, EvaluateOptions(data=str(data), limit=1, audio="noise"))
    assert own.masks.any()
    assert not silent.masks.any()
    assert noisy.masks.mean() < own.masks.mean() / 2
    for video in (silent, noisy):
        assert video.result.gated.original == own.result.gated.original
        assert video.result.naming == own.result.naming


def test_only_names_that_are_asked_for_are_given(nano: LoadedModel, data: Path) -> None:
    options = EvaluateOptions(data=str(data), subset="avss", name=("mobile phone",), limit=1)
    (video,) = evaluated(nano, options)
    assert video.labels is not None
    plan = plan_evaluation(options)
    assert set(np.unique(video.labels)) <= {0, plan.label_names.index("phone")}
    assert choose_names(nano, options, plan) == (["phone"], [])


def test_names_that_are_no_classes_are_left_out_and_said(
    avss: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--subset", "avss", "--split", "val", "--model", "nano", "--hear", "words"]
    assert main(["evaluate", "--data", str(avss), *words, "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert {"kettle", "siren", "bee"} < set(record["unused_names"])
    assert "9 names are used; 7 names that are not classes of AVSBench-semantic" in err
    assert main(["evaluate", "--data", str(avss), *words, "--name", "kettle"]) == 2
    assert "no name of the vocabulary is a class of AVSBench-semantic" in capsys.readouterr().err


def test_sources_are_found_by_what_the_data_calls_them() -> None:
    source = load_vocabulary().find
    labels = ("background", "playing_piano", "keyboard", "phone", "emergency-car")
    assert label_name(source("piano"), labels) == "playing_piano"
    assert label_name(source("computer keyboard"), labels) == "keyboard"
    assert label_name(source("telephone"), labels) == "phone"
    assert label_name(source("police car"), labels) == "emergency-car"
    assert label_name(source("dog"), labels) is None


def test_silent_seconds_have_neither_masks_nor_names() -> None:
    labels = np.ones((3, 2, 2), np.uint16)
    gated = Prediction(torch.ones(3, 2, 2), labels).suppress(torch.tensor([False, True, False]))
    assert gated.labels is not None
    assert gated.labels[:, 0, 0].tolist() == [1, 0, 1]
    assert (gated.logits > 0)[:, 0, 0].tolist() == [True, False, True]


def test_options_of_the_words_route_need_it(nano: LoadedModel, data: Path) -> None:
    with pytest.raises(UsageError, match="`name` needs sources with names; set `hear` to words"):
        EvaluateOptions(hear="trained", name=("dog",))
    with pytest.raises(UsageError, match="`reference_audio` has no effect with `hear` words"):
        EvaluateOptions(hear="words", reference_audio=True)
    with pytest.raises(UsageError, match="`hear` has no effect on `predictions`"):
        EvaluateOptions(hear="words", predictions=data)
    options = EvaluateOptions(data=str(data), reference_audio=True)
    with pytest.raises(UsageError, match="`reference_audio` has no effect"):
        WordsRoute(nano, options, plan_evaluation(options))
