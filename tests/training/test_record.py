"""The state of code and data that a run records."""

import shutil
import subprocess
from pathlib import Path

import pytest

from av2tsam_cli.training.record import git_state

git = shutil.which("git")


def make_repository(folder: Path) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    (folder / "labels.csv").write_text("a,b\n")
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "labels"]):
        run_git(folder, *arguments)


def run_git(folder: Path, *arguments: str) -> None:
    assert git is not None
    subprocess.run([git, "-C", str(folder), *arguments], check=True)  # noqa: S603 - fixed arguments


@pytest.mark.skipif(git is None, reason="needs git")
def test_git_state_is_the_commit_and_whether_files_changed(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    make_repository(tmp_path)
    clean = git_state(tmp_path)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["changed"] is False
    (tmp_path / "labels.csv").write_text("a,c\n")
    assert git_state(tmp_path) == {**clean, "changed": True}


@pytest.mark.skipif(git is None, reason="needs git")
@pytest.mark.parametrize(("key", "changed"), [("core.fsmonitor", True), ("filter.a.clean", None)])
def test_no_program_that_a_repository_names_is_run(
    tmp_path: Path, key: str, changed: bool | None
) -> None:
    make_repository(tmp_path)
    run_git(tmp_path, "config", key, f"touch '{tmp_path / 'ran'}'; cat")
    (tmp_path / ".gitattributes").write_text("* filter=a\n")
    (tmp_path / "labels.csv").write_text("a,c\n")
    state = git_state(tmp_path)
    assert state is not None
    assert state["changed"] is changed
    assert not (tmp_path / "ran").exists()
