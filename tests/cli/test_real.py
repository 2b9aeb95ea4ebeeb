"""`av2tsam models pull real`: the whole set in miniature, from a hub to a segmented video."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from av2tsam_cli.__main__ import main
from av2tsam_cli.hub import download, locate
from av2tsam_cli.hub.checkpoint import write_tensors
from av2tsam_cli.hub.registry import MODELS

from .. import real_set
from ..fake_hub import Hub

MEMBERS = ("evf-sam2-text", "beit3-tokenizer", "clap-laion", "roberta-tokenizer", "clip-vit-b-32")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def _publish(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the miniatures on the fake hub and into the registry."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    hub.repositories = real_set.repositories()
    for name, entry in real_set.registry().items():
        monkeypatch.setitem(MODELS, name, entry)


@pytest.fixture
def installed(home: Path) -> None:
    """Install the set without a hub."""
    home.mkdir()
    real_set.install(home, "evf-sam2-text", "clap-laion", "clip-vit-b-32")


def models(*words: str) -> int:
    return main(["models", *words])


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_set_is_pulled_verified_used_and_removed(
    hub: Hub,
    home: Path,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    tone: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models("pull", "real", "--dry-run", "--quiet") == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(MEMBERS)
    assert total.startswith("5 files, ")

    # The first download fails.
    hub.cuts = [-1]
    assert models("pull", "real") == 4
    err = capsys.readouterr().err
    assert f"downloading 5 files, {total.split()[2]} " in err
    assert str(home) in err
    assert "status 503" in err
    hub.requests.clear()

    assert models("pull", "real") == 0
    out, err = capsys.readouterr()
    assert all(f"installed {name} as" in out for name in MEMBERS)
    *_, checks = out.rpartition("cosine")
    assert checks.count("ok") == 7
    assert err.endswith("real is now the default model\n")
    assert set(locate.installed_models()) == {"nano", "real", *MEMBERS}

    # What is installed is only checked again.
    assert models("pull", "real") == 0
    out, err = capsys.readouterr()
    assert "already installed" in err
    assert out.count("ok") == 7
    assert models("verify", "real") == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(": ok")] == [
        f"{name}: ok" for name in MEMBERS
    ]
    assert models("path", "real") == 0
    assert capsys.readouterr().out == f"{home / 'evf-sam2-text.safetensors'}\n"

    clip = make_clip(rate=4, seconds=2, sounds=[{"samples": tone(2.0)}])
    segment = ["segment", str(clip), "--json", "--out"]
    assert main([*segment, str(tmp_path / "text.mp4"), "--text", "the dog", "-m", "real"]) == 0
    assert main([*segment, str(tmp_path / "words.mp4")]) == 0
    text, words = records(capsys.readouterr().out)
    assert text["frames"] == words["frames"] == 8
    assert text["model"] == words["model"] == "real"
    assert words["hear"] == "words"
    assert main(["listen", str(clip), "--json", "--model", "real"]) == 0
    assert records(capsys.readouterr().out)[0]["model"] == "real"
    assert models("info", "--json") == 0
    assert records(capsys.readouterr().out)[0]["model"] == "real"

    assert models("remove", "real") == 0
    assert locate.installed_models() == ["nano"]
    assert not list(home.glob("*.*"))
    assert models("remove", "real") == 4
    assert "real: not installed" in capsys.readouterr().err


def test_an_interrupted_download_of_the_set_resumes(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    pulled = download.pull("real")
    assert [next(pulled).record.name for _ in range(2)] == list(MEMBERS[:2])
    pulled.close()
    hub.cuts = [5000, -1]
    assert models("pull", "real", "--quiet") == 4
    assert "status 503" in capsys.readouterr().err
    assert [path.name for path in home.rglob("*.part")] == ["630k-audioset-best.pt.part"]
    hub.requests.clear()
    assert models("pull", "real") == 0
    assert hub.ranges() == ["bytes=5000-", None, None]  # what is installed is not downloaded again
    assert "downloading 3 files" in capsys.readouterr().err


def test_json_has_a_record_per_model_and_one_of_the_self_check(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models("pull", "real", "--json", "--quiet") == 0
    *pulled, checked = records(capsys.readouterr().out)
    assert [record["model"] for record in pulled] == list(MEMBERS)
    assert checked["model"] == "real"
    assert {check["problem"] for check in checked["self_check"]} == {""}


@pytest.mark.parametrize("missing", MEMBERS)
@pytest.mark.usefixtures("installed")
def test_a_missing_member_is_named_with_the_command_that_gets_it(
    missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    locate.installed_path(missing).unlink()
    assert models("path", "real") == 4
    assert capsys.readouterr().err == (
        f"av2tsam: error: real: {missing} not installed; run 'av2tsam models pull real'\n"
    )
    assert locate.resolve().stem == "nano"
    assert models("info", "real", "--json") == 0
    assert records(capsys.readouterr().out)[0]["missing"] == [missing]


@pytest.mark.usefixtures("installed")
def test_a_trained_model_is_preferred_to_the_set(home: Path) -> None:
    assert locate.resolve().stem == "evf-sam2-text"
    (home / "evf-sam2.safetensors").touch()
    assert locate.resolve().stem == "evf-sam2"
    assert locate.resolve(use="words").stem == "evf-sam2-text"


@pytest.mark.usefixtures("installed")
def test_remove_keeps_what_another_model_needs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "evf-sam-text.safetensors").touch()
    assert models("remove", "real", "--dry-run", "--json") == 0
    (record,) = records(capsys.readouterr().out)
    assert record["kept"] == ["beit3-tokenizer"]
    assert models("remove", "real") == 0
    assert locate.installed_models() == [
        "nano",
        "evf-sam-text",
        "beit3-tokenizer",
        "gpt2-tokenizer",
    ]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("chosen", [(), ("--model", "real")])
def test_evaluate_scores_the_set(
    generated: Path, chosen: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--data-root", str(generated), "--subset", "s4", "--split", "val"]
    assert main([*words, "--json", *chosen]) == 0
    out, err = capsys.readouterr()
    (record,) = records(out)
    assert (record["model"], record["hear"]) == ("real", "words")
    assert ("using the model real" in err) == (not chosen)


def test_without_a_network_one_line_names_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert models("pull", "real") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "http://127.0.0.1:9 cannot be reached" in line
    assert line.count("huggingface.co") == len(MEMBERS)


def test_a_file_cannot_be_chosen_for_the_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("pull", "real", "--file", "model.safetensors") == 2
    assert "--file: real is a set of models" in capsys.readouterr().err


def collapse(name: str, what: str, path: Path) -> None:
    """Overwrite a model's projection so that all inputs get the same embedding, or NaN."""
    tensors = {key: tensor.clone() for key, tensor in real_set.weights(name).items()}
    if what == "row":  # of a token that no phrase of the check has
        tensors["clap_text.encoder.embeddings.word_embeddings.weight"][-1] = torch.inf
    elif what == "nan":
        next(iter(tensors.values())).view(-1)[0] = torch.nan
    else:
        tensors[f"{what}.weight"].zero_()
        tensors[f"{what}.bias"].fill_(1.0)
    write_tensors(tensors, path, real_set.config(name))


@pytest.mark.parametrize(
    ("name", "what", "problem"),
    [
        ("clap-laion", "clap_text.projection.2", "unrelated phrases are nearly the same"),
        ("clap-laion", "clap.projection.2", "a bark-like sound are nearly the same"),
        ("clip-vit-b-32", "clip_text.encoder.ln_final", "unrelated phrases are nearly the same"),
        ("clip-vit-b-32", "clip.visual.ln_post", "a textured picture are nearly the same"),
        ("evf-sam2-text", "nan", "1 tensors with NaN or infinity"),
        ("clap-laion", "row", "1 tensors with NaN or infinity"),
    ],
)
def test_the_self_check_names_the_file_that_fails_it(
    home: Path, name: str, what: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models("pull", "real", "--quiet") == 0
    path = locate.installed_path(name)
    collapse(name, what, path)
    note = home / f"{name}.json"
    record = json.loads(note.read_text())
    note.write_text(json.dumps(record | {"sha256": download.sha256(path)}))
    capsys.readouterr()
    assert models("verify", "real") == 4
    out, err = capsys.readouterr()
    assert out.count("failed") == 1
    (line,) = [each for each in err.splitlines() if "error" in each]
    assert f"{path}: failed the self-check: " in line
    assert problem in line
    assert f"'av2tsam models pull {name} --force'" in line
