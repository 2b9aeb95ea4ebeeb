"""The commands and the Python code in the README work as written."""

import re
import shlex
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main

from .conftest import cut_sample, tone, write_clip

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNNABLE = ("README.md", "docs/segment.md", "docs/masks.md", "docs/listen.md", "docs/scripts.md")
RUNNABLE += ("docs/datasets.md",)
"""Pages whose `sh` blocks are run. Blocks marked `bash` need weights, data or a network."""
FEWER = {"60": "12"}
"""Numbers that only affect the time."""


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def command_blocks() -> Iterator[list[list[str]]]:
    """Yield the words after `av2tsam` of every command, by shell block."""
    for page in RUNNABLE:
        for block in code_blocks((ROOT / page).read_text(encoding="utf-8"), "sh"):
            commands = []
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.partition(">")[0].split("&&"):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["av2tsam"]:
                        commands.append([FEWER.get(word, word) for word in words[1:]])
            if commands:
                yield commands


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the commands name, the samples cut short; do not modify."""
    folder = tmp_path_factory.mktemp("files")
    for sample in (ROOT / "sample_media").glob("*.mp4"):
        cut_sample(sample.name, 2.0, folder / "sample_media" / sample.name)
    (folder / "takes").mkdir()
    for name in ("takes/1.mp4", "takes/2.mp4"):
        write_clip(folder / name, rate=4, sounds=[{"samples": tone(1.0)}])
    write_clip(folder / "video.mp4", seconds=12, rate=1, sounds=[{"samples": tone(12.0)}])
    quarter = Fraction(1, 4)
    write_clip(folder / "concert.mp4", seconds=72, rate=quarter, sounds=[{"samples": tone(72.0)}])
    return folder


@pytest.fixture
def workspace(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the files as the current folder."""
    workspace = Path(shutil.copytree(files, tmp_path / "workspace"))
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVSBENCH_ROOT", raising=False)
    return workspace


@pytest.mark.parametrize("commands", list(command_blocks()), ids=lambda found: " ".join(found[0]))
def test_the_commands_work(commands: list[list[str]], workspace: Path, tiny_model: Path) -> None:
    for words in commands:
        # Statements about the samples and about phrases concern nano; elsewhere any model will do.
        is_nano = "--text" in words or any(word.startswith("sample_media") for word in words)
        model = [] if is_nano or words[0] != "segment" else ["--model", str(tiny_model)]
        assert main([*words, *model]) == 0, " ".join(words)
        for flag in {"-o", "--out"} & set(words):
            assert (workspace / words[words.index(flag) + 1]).exists()


def test_the_python_code_works(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = code_blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own code
    found, of, frames = capsys.readouterr().out.split()
    assert of == "of"
    assert 0 < int(found) <= int(frames)
    assert (workspace / "solo_overlay.mp4").exists()


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert [int(row) for row in rows] == [0, 1, 2, 3, 4, 130, 141]
