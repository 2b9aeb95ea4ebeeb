"""Slim containers lack libraries of the system that OpenCV needs: that is one clear line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from av2tsam_cli.cli.system_libraries import PACKAGE_OF, explain_missing_library

SOLO = Path(__file__).parents[2] / "sample_media" / "solo.mp4"
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
WITHOUT_LIBRARIES = f"""
set -e
scratch=$1
shift
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work"
mount -t overlay overlay -o "lowerdir={LIBRARIES},upperdir=$scratch/upper,workdir=$scratch/work" \
  {LIBRARIES}
rm -f {" ".join(f"{LIBRARIES}/{name.partition('.so')[0]}.so*" for name in PACKAGE_OF)}
echo hidden
exec "$@"
"""
"""Run a command in a mount namespace in which the libraries do not exist."""


def run_in_slim_container(scratch: Path, *words: str) -> subprocess.CompletedProcess[str]:
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid():
        pytest.skip("needs root and unshare to hide libraries in a mount namespace")
    if not (LIBRARIES / "libGL.so.1").exists():
        pytest.skip("needs a Debian system that has the libraries which are to be hidden")
    scratch.mkdir()
    command = [sys.executable, "-m", "av2tsam_cli", *words]
    done = subprocess.run(  # noqa: S603 - fixed words
        [unshare, "--mount", "bash", "-c", WITHOUT_LIBRARIES, "bash", str(scratch), *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if not done.stdout.startswith("hidden\n"):
        pytest.skip(f"this machine allows no overlay mounts: {done.stderr.strip()}")
    done.stdout = done.stdout.removeprefix("hidden\n")
    return done


def test_segment_names_the_libraries_and_their_packages_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    done = run_in_slim_container(tmp_path / "scratch", "segment", str(SOLO), "--out", str(out))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "libGL.so.1" in done.stderr
    assert "apt-get install libgl1 libxcb1 libglib2.0-0" in done.stderr
    assert not out.exists()


def test_doctor_says_that_segment_cannot_run(tmp_path: Path) -> None:
    done = run_in_slim_container(tmp_path / "scratch", "doctor", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ready"] is False
    (problem,) = report["problems"]
    assert all(library in problem for library in PACKAGE_OF)


def test_a_library_of_another_package_is_named() -> None:
    error = ImportError("libnone.so.7: cannot open shared object file: No such file or directory")
    explained = explain_missing_library(error)
    assert explained is not None
    assert explained.startswith("libnone.so.7 is missing")


def test_other_import_errors_are_none_of_these() -> None:
    assert explain_missing_library(ModuleNotFoundError("No module named 'none'")) is None
