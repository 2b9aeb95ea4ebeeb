"""`av2tsam models`."""

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.hub.checkpoint import load_network, write_tensors
from av2tsam_cli.hub.convert import expected_shapes
from av2tsam_cli.model.config import EVF_SAM2

from ..fake_hub import COMMIT, Hub
from ..tiny import tiny_bpe

TOKENIZER = "tokenizer.json"
REPOSITORY = "openai-community/gpt2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tokenizer() -> bytes:
    """Return a SentencePiece model with a few pieces."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    pieces = ["<unk>", "<s>", "</s>", "▁the", "▁dog"]
    score = bytes([2 << 3 | 5]) + struct.pack("<f", -1.0)
    return b"".join(field(1, field(1, piece.encode()) + score) for piece in pieces)


@pytest.fixture
def run(hub: Hub) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a new process, since huggingface_hub reads its environment only once."""

    def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "av2tsam_cli", "models", *words],
            env={**os.environ, "HF_ENDPOINT": hub.url, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return command


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_shows_every_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "installed", "size", "licence", "use"]
    rows = {line.split()[0]: line for line in lines}
    assert {"nano", "evf-sam", "evf-sam2", "clap-microsoft", "clip-vit-b-32"} <= set(rows)
    assert "not measured here" in rows["evf-sam"]
    assert "MS-PL" in rows["clap-microsoft"]
    assert main(["models", "list", "--json"]) == 0
    by_name = {record["model"]: record for record in records(capsys.readouterr().out)}
    assert by_name["evf-sam"]["installed"] is False
    assert by_name["nano"]["installed"] is True
    # The scores of nano are read from the card in its metadata.
    miou = by_name["nano"]["measured"]["s4"]["miou"]
    assert f"{miou:.3f} S4" in rows["nano"]


def test_list_path_and_verify_do_not_import_torch() -> None:
    code = (
        "import sys; from av2tsam_cli.__main__ import main\n"
        "codes = [main(['models', *words.split()]) for words in ('list', 'path', 'verify')]\n"
        "print(codes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] False"


def test_info_and_path_of_a_checkpoint(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "info", str(tiny_model), "--json"]) == 0
    (record,) = records(capsys.readouterr().out)
    assert record["config"]["name"] == "tiny"
    assert record["bytes"] == tiny_model.stat().st_size
    assert record["parameters"]["projector"] == 16 * 16 + 16 + 16 * 16 + 16 + 16 * 16 + 16 + (
        16 * 3 * 32 + 3 * 32
    )
    assert record["missing"] == []
    assert main(["models", "path", str(tiny_model)]) == 0
    assert capsys.readouterr().out == f"{tiny_model}\n"


def test_info_lists_the_models_that_a_trained_checkpoint_is_missing(
    tiny_model: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, trained = load_network(tiny_model), tmp_path / "trained.safetensors"
    network.config = dataclasses.replace(network.config, words=())
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(("clip", "clap"))}
    write_tensors(state, trained, network.config)
    needed = ["clip-vit-b-32", "clap-laion", "beit3-tokenizer"]
    assert main(["models", "info", str(trained), "--json"]) == 0
    assert records(capsys.readouterr().out)[0]["missing"] == needed
    home.mkdir()
    (tmp_path / "clip-vit-b-32.safetensors").touch()
    (home / "clap-laion.safetensors").touch()
    (home / "beit3-tokenizer.spm").touch()
    assert main(["models", "info", str(trained), "--json"]) == 0
    assert records(capsys.readouterr().out)[0]["missing"] == []


def test_info_of_a_model_that_is_not_installed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "info", "evf-sam2"]) == 0
    out = capsys.readouterr().out
    assert "repository: Kyungbok/AV2T-SAM" in out
    assert "needs: clip-vit-b-32, clap-microsoft, beit3-tokenizer" in out
    assert "unverified: which files the repository contains" in out


def test_costs_of_a_model_need_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "evf-sam2", "--flops", "--json"]) == 0
    (record,) = records(capsys.readouterr().out)
    costs = record["costs"]
    # Parameters of the reference implementation, in millions.
    millions = {part: cost["parameters"] / 1e6 for part, cost in costs.items()}
    reference = {"projector": 2.63, "adapter": 26.1, "beit3": 672.7, "text_hidden_fcs": 1.31}
    reference |= {"image_encoder": 212.7, "prompt_and_mask_decoder": 4.22}
    assert {part: millions[part] for part in reference} == pytest.approx(reference, rel=2e-3)
    # The reference needs 1.95 TFLOP per frame, without CLIP and CLAP.
    assert sum(costs[part]["flops"] for part in reference) == pytest.approx(1.95e12, rel=2e-3)
    assert costs["total"]["flops"] == sum(costs[part]["flops"] for part in list(costs)[:-1])


def test_costs_are_printed_as_a_table(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", str(tiny_model), "--flops"]) == 0
    *_, table = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[0].split() == [
        "part",
        "parameters",
        "(millions)",
        "GFLOPs",
        "per",
        "frame",
    ]
    assert [line.split()[0] for line in table.splitlines()[1:]] == [
        "clip", "clap", "projector", "adapter", "beit3", "text_hidden_fcs", "image_encoder",
        "prompt_and_mask_decoder", "total",
    ]  # fmt: skip


def test_costs_of_a_single_part_are_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "clap-laion", "--flops"]) == 2
    assert (
        "does not have all parts of a network; use one that has, such as evf-sam2"
        in capsys.readouterr().err
    )


def test_model_that_is_not_installed_exits_with_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "evf-sam-text"]) == 4
    err = capsys.readouterr().err
    assert "evf-sam-text: not installed; run 'av2tsam models pull evf-sam-text'" in err
    assert "'av2tsam models convert pytorch_model.bin'" in err
    assert main(["models", "info", "nonsense"]) == 4
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pull clap-microsft", "did you mean 'clap-microsoft'?"),
        ("verify ../evf-sam", "unknown model '../evf-sam'"),
        ("remove ../evf-sam", "unknown model '../evf-sam'"),
        ("pull nano", "comes with the package"),
        ("remove nano", "comes with the package"),
        ("pull", "missing NAME"),
    ],
)
def test_invalid_name_exits_with_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_dry_run_shows_what_would_be_downloaded(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", "evf-sam-text", "--dry-run"]) == 0
    network, tokenizer, total = capsys.readouterr().out.splitlines()
    assert network == (
        "evf-sam-text: would download pytorch_model.bin from "
        "huggingface.co/YxZhang/evf-sam-multitask (2.63 GB) "
        f"to {home / 'evf-sam-text.safetensors'}"
    )
    assert tokenizer.startswith("beit3-tokenizer: would download sentencepiece.bpe.model from ")
    assert total == "2 files, 2.63 GB in total"
    assert main(["models", "pull", "clap-laion", "--dry-run", "--json"]) == 0
    record, tokenizer_record = records(capsys.readouterr().out)
    assert tokenizer_record["model"] == "roberta-tokenizer"
    assert record["bytes"] == 1_860_000_000
    assert record["repository"] == "lukewys/laion_clap"
    assert not home.exists()


def test_pull_verify_and_remove(
    run: Callable[..., subprocess.CompletedProcess[str]],
    hub: Hub,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repositories = {REPOSITORY: {TOKENIZER: tiny_bpe("gpt2")}}
    pulled = run("pull", "gpt2-tokenizer", "--json")
    assert pulled.returncode == 0, pulled.stderr
    (record,) = records(pulled.stdout)
    assert record["source"]["revision"] == COMMIT
    path = Path(record["path"])
    assert path.read_bytes() == tiny_bpe("gpt2")
    assert pulled.stderr == (
        f"av2tsam: downloading {TOKENIZER} from {REPOSITORY} at {COMMIT[:12]}\n"
    )

    assert main(["models", "verify"]) == 0
    assert capsys.readouterr().out == "nano: ok\ngpt2-tokenizer: ok\n"
    path.write_bytes(tiny_bpe("gpt2") + b"\0")
    assert main(["models", "verify", "--json"]) == 4
    statuses = {r["model"]: r["status"] for r in records(capsys.readouterr().out)}
    assert statuses == {"nano": "ok", "gpt2-tokenizer": "differs"}
    path.unlink()
    assert main(["models", "verify", "gpt2-tokenizer"]) == 4
    assert "missing" in capsys.readouterr().out
    path.write_bytes(tiny_bpe("gpt2"))

    assert main(["models", "remove", "gpt2-tokenizer", "--dry-run"]) == 0
    assert path.is_file()
    assert main(["models", "remove", "gpt2-tokenizer"]) == 0
    assert not list(home.glob("*.*"))
    assert main(["models", "remove", "gpt2-tokenizer"]) == 4
    assert "nothing to remove" in capsys.readouterr().err


def test_file_without_a_record_cannot_be_verified(
    home: Path, tokenizer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / "beit3-tokenizer.spm").write_bytes(tokenizer)
    assert main(["models", "verify"]) == 4
    assert "no record to compare it with" in capsys.readouterr().out


@pytest.mark.parametrize(
    "environment",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}],
    ids=["offline", "refused"],
)
def test_without_a_network_one_line_says_what_to_do(
    run: Callable[..., subprocess.CompletedProcess[str]], home: Path, environment: dict[str, str]
) -> None:
    done = run("pull", "clap-laion", **environment)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "630k-audioset-best.pt from huggingface.co/lukewys/laion_clap (1.86 GB)" in line
    assert "'av2tsam models convert FILE'" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_a_download(hub: Hub, home: Path, number: signal.Signals) -> None:
    hub.repositories = {REPOSITORY: {TOKENIZER: tiny_bpe("gpt2")}}
    hub.hold = threading.Event()
    with subprocess.Popen(
        [sys.executable, "-m", "av2tsam_cli", "models", "pull", "gpt2-tokenizer", "--quiet"],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not hub.files_requested():
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    hub.hold.set()
    assert process.returncode == 130
    assert err.splitlines() == [
        "av2tsam: error: interrupted; the partial download is kept, "
        "'av2tsam models pull gpt2-tokenizer' resumes it"
    ]
    assert not list(home.glob("gpt2*"))


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Microsoft CLAP's audio side as it is published, in full size, all weights zero."""
    path = tmp_path_factory.mktemp("published") / "CLAP_weights_2023.pth"
    state = {}
    for name, shape in expected_shapes(EVF_SAM2, ("clap",)).items():
        published = name.removeprefix("clap.").replace("htsat.", "base.htsat.", 1)
        zero = torch.zeros((), dtype=torch.float16)
        state[f"audio_encoder.{published}"] = zero.expand(shape)  # stored as a single number
    state["audio_encoder.base.htsat.head.bias"] = torch.zeros(1)
    torch.save({"model": state}, path)
    return path


def test_convert_writes_a_file_and_prints_a_report(
    clap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "converted.safetensors"
    words = ["models", "convert", str(clap), "--out", str(out), "--dtype", "bf16"]
    assert main(words) == 0
    out_text = capsys.readouterr().out
    assert out_text.startswith("recognised Microsoft CLAP 2023 as clap-microsoft\n")
    assert "skipped 1: unused classifier" in out_text
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    (record,) = records(capsys.readouterr().out)
    assert record["name"] == "clap-microsoft"
    assert record["skipped"] == {"unused classifier": 1}
    assert main(["models", "info", str(out), "--json"]) == 0
    (info,) = records(capsys.readouterr().out)
    assert info["dtype"][0] == "BF16"
    assert list(tmp_path.iterdir()) == [out]


def test_convert_without_out_installs_the_model(
    clap: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["models", "convert", str(clap)]
    assert main(words) == 0
    path = home / "clap-microsoft.safetensors"
    assert f"installed clap-microsoft as {path}" in capsys.readouterr().out
    assert json.loads((home / "clap-microsoft.json").read_text())["source"]["file"] == str(clap)
    assert main(["models", "verify", "clap-microsoft"]) == 0
    assert main(["models", "path", "clap-microsoft"]) == 0
    assert capsys.readouterr().out.endswith(f"{path}\n")
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_convert_installs_a_tokenizer(
    tokenizer: bytes, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "beit3.spm"
    source.write_bytes(tokenizer)
    assert main(["models", "convert", str(source)]) == 0
    assert (home / "beit3-tokenizer.spm").read_bytes() == tokenizer
    source.write_bytes(b"something else")
    assert main(["models", "convert", str(source), "--overwrite"]) == 4
    assert "not a SentencePiece model" in capsys.readouterr().err
    assert (home / "beit3-tokenizer.spm").read_bytes() == tokenizer


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("converted.pth", "not a .safetensors file"),
        ("absent/converted.safetensors", "does not exist"),
        ("source.safetensors", "choose another name"),
    ],
)
def test_invalid_output_exits_with_2(
    out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.safetensors"
    source.write_bytes(b"")
    words = ["models", "convert", str(source), "--out", str(tmp_path / out), "--overwrite"]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_unusable_source_exits_with_2_or_4(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "model.bin"
    assert main(["models", "convert", str(source)]) == 2
    assert "file not found" in capsys.readouterr().err
    torch.save({"something": torch.zeros(1)}, source)
    assert main(["models", "convert", str(source)]) == 4
    assert "unknown kind of checkpoint" in capsys.readouterr().err
    assert not home.exists()
