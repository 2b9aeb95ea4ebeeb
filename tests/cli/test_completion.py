"""What shells offer with the scripts of `av2tsam completion`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main

CASES = [
    (["seg"], {"segment"}),
    (["data", ""], {"synth", "check"}),
    (["segment", "--form"], {"--format"}),
    (["segment", "--style", "s"], {"spotlight", "side-by-side"}),
    (["data", "synth", "--subset", ""], {"s4", "ms3", "avss"}),
    (["segment", "--fps", ""], {"auto", "all"}),
    (["segment", "--crf", ""], set()),
    (["segment", "-m", "nan"], {"nano"}),
    (["models", "pull", "clip"], {"clip-vit-b-32"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
    (["config", "show", "seg"], {"segment"}),
    (["segment", "my"], {"my video.mp4"}),
    (["segment", "a.mp4", "-o", "my"], {"my video.mp4"}),
]


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> "Runner":
    (tmp_path / "my video.mp4").touch()
    monkeypatch.chdir(tmp_path)
    return Runner(tmp_path / "completion", capsys)


class Runner:
    """Runs commands in a shell after the completion script."""

    def __init__(self, script: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.script = script
        self.capsys = capsys

    def __call__(self, shell: str, commands: str, before: str = "") -> list[str]:
        """Return the lines that the commands print."""
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"{shell} is not installed")
        assert main(["completion", shell]) == 0
        self.script.write_text(self.capsys.readouterr().out)
        done = subprocess.run(  # noqa: S603 - our own commands
            [program, "-c", f"{before}\nsource {self.script}\n{commands}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        return done.stdout.splitlines()


def complete_in_bash(words: list[str]) -> str:
    typed = " ".join(f"'{word}'" for word in ["av2tsam", *words])
    return (
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _av2tsam\n"
        'printf "%s\\n" "${COMPREPLY[@]}" ==\n'
    )


def test_bash_completes_commands_options_values_and_files(run: Runner) -> None:
    cases = [*CASES, (["segment", "--style", "=", "spo"], {"spotlight"})]
    lines = run("bash", "".join(complete_in_bash(words) for words, _ in cases))
    found = [set(block.split("\n")) - {""} for block in "\n".join(lines).split("\n==")]
    assert [each - {"--help"} for each in found[:-1]] == [expected for _, expected in cases]


def test_fish_completes_commands_options_values_and_files(run: Runner) -> None:
    commands = [f"complete -C 'av2tsam {' '.join(words)}'; echo ==" for words, _ in CASES]
    lines = [line.split("\t")[0].replace("\\ ", " ") for line in run("fish", "\n".join(commands))]
    found = [set(block.split("\n")) - {""} for block in "\n".join(lines).split("\n==")]
    assert found[:-1] == [expected for _, expected in CASES]


def test_zsh_accepts_the_script(run: Runner) -> None:
    lines = run(
        "zsh",
        "whence -w _av2tsam; echo $_comps[av2tsam]",
        before="autoload -Uz compinit; compinit -D -u",
    )
    assert lines == ["_av2tsam: function", "_av2tsam"]


def test_every_option_is_in_each_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "--help-all"]) == 0
    flags = {word for word in capsys.readouterr().out.split() if word.startswith("--no-")}
    assert flags
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        out = capsys.readouterr().out
        assert not [flag for flag in flags if flag not in out]
    assert main(["completion", "tcsh"]) == 2
    assert "unknown shell 'tcsh'; use bash, zsh or fish" in capsys.readouterr().err
