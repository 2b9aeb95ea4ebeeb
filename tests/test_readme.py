"""What the README tells to type is typed."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.__main__ import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = r"```{}\n(.*?)```"
FEWER = {"60": "12"}
"""Numbers that only cost time."""


def blocks() -> Iterator[list[list[str]]]:
    """The words after `av2tsam` of every command, by shell block.

    Blocks marked `bash` need weights that are not here.
    """
    for block in re.findall(BLOCK.format("sh"), README, re.DOTALL):
        commands = []
        for line in block.splitlines():
            for part in line.partition(">")[0].split("&&"):
                words = shlex.split(part, comments=True)
                if words[:1] == ["av2tsam"]:
                    commands.append([FEWER.get(word, word) for word in words[1:]])
        if commands:
            yield commands


@pytest.fixture
def place(
    tmp_path: Path,
    make_clip: Callable[..., Path],
    tone: Callable[..., npt.NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with everything that the README's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVSBENCH_ROOT", raising=False)
    shutil.copytree(ROOT / "sample_media", tmp_path / "sample_media")
    (tmp_path / "takes").mkdir()
    for name in ("video.mp4", "takes/1.mp4", "takes/2.mp4"):
        make_clip(name, rate=4, sounds=[{"samples": tone(1.0)}])
    make_clip("concert.mp4", seconds=72, rate=1, sounds=[{"samples": tone(72.0)}])
    return tmp_path


@pytest.mark.parametrize("commands", list(blocks()), ids=lambda commands: " ".join(commands[0]))
def test_the_commands_of_the_readme_work(
    commands: list[list[str]], place: Path, tiny_model: Path
) -> None:
    for words in commands:
        # What is said about the samples is said about nano; elsewhere any model will do.
        ours = any(word.startswith("sample_media") for word in words)
        model = ["--model", str(tiny_model)] if words[0] == "segment" and not ours else []
        assert main([*words, *model]) == 0, " ".join(words)
        if "--out" in words:
            assert (place / words[words.index("--out") + 1]).exists()


def test_the_python_of_the_readme_works(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(BLOCK.format("python"), README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own
    found, of, frames = capsys.readouterr().out.split()
    assert of == "of"
    assert 0 < int(found) <= int(frames)
    assert (place / "solo_overlay.mp4").exists()


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert [int(row) for row in rows] == [0, 1, 2, 3, 4, 130]
