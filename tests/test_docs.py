"""The documentation: links resolve, options exist, and the Python examples run."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.cli.app import COMMANDS as TOP_LEVEL
from av2tsam_cli.cli.segment import KEYS
from av2tsam_cli.inference.device import torch_threads

from .conftest import cut_sample

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = (
    "segment",
    "listen",
    "train",
    "evaluate",
    "doctor",
    "data synth",
    "data check",
    "models list",
)
COMMANDS += ("models info", "models path", "models pull", "models verify", "models remove")
COMMANDS += (
    "models convert",
    "vocabulary show",
    "vocabulary check",
    "runs compare",
    "config show",
    "completion",
)
OTHER_PROGRAMS = {
    *("--index-url", "--rm", "--nproc-per-node", "--no-python", "--help", "--group", "--extra"),
    *("--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--max-restarts", "--local-addr"),
    *("--nano", "--pytorch-init", "--samples", "--seeds", "--variants"),
    *("--count", "--first", "--keep", "--only", "--jobs", "--runs", "--signals", "--steps"),
}
"""Options of pip, docker, torchrun, uv, the scripts in recipes/, and the proofs in tests/."""
BENCHMARKS = "performance.md"
"""This page names options of the scripts in benchmarks/."""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs and GitHub make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def test_every_key_of_the_json_is_documented() -> None:
    page = (ROOT / "docs" / "scripts.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_options_in_the_documentation_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([*command.split(), "--help-all"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]*[a-z]", capsys.readouterr().out)) | OTHER_PROGRAMS
    known |= {flag.replace("--", "--no-", 1) for flag in known}  # each flag can be switched off
    for page in PAGES:
        if page.name != BENCHMARKS:
            used = set(
                re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", page.read_text(encoding="utf-8"))
            )
            assert used <= known, page.name


def test_the_command_reference_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    assert main(["--help"]) == 0
    assert hooks["_subcommands"]("", capsys.readouterr().out) == list(TOP_LEVEL)


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    cut_sample("duet.mp4", 4.0, tmp_path / "sample_media" / "duet.mp4")
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    with torch_threads(3):
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(code, "docs/python.md", "exec"), {})  # noqa: S102 - our own code
        assert torch.get_num_threads() == 3
    out = capsys.readouterr().out
    assert "frames have a mask" in out
    assert "missing.mp4" in out
    assert {path.name for path in tmp_path.iterdir()} >= {"python_overlay.mp4", "python_masks"}
