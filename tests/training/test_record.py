"""The state of code and data that a run records."""

import shutil
import subprocess
from pathlib import Path

import pytest

from av2tsam_cli.training.record import git_state

git = shutil.which("git")


@pytest.mark.skipif(git is None, reason="needs git")
def test_git_state_is_the_commit_and_whether_files_changed(tmp_path: Path) -> None:
    assert git is not None
    assert git_state(tmp_path) is None
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    (tmp_path / "labels.csv").write_text("a,b\n")
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "labels"]):
        subprocess.run([git, "-C", str(tmp_path), *arguments], check=True)  # noqa: S603 - fixed arguments
    clean = git_state(tmp_path)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["changed"] is False
    (tmp_path / "labels.csv").write_text("a,c\n")
    assert git_state(tmp_path) == {**clean, "changed": True}
