"""Comparisons of runs: groups, statistics and tables."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.training.compare import compare_runs, latex, markdown
from av2tsam_cli.training.options import TrainOptions


def write_run(
    folder: Path, miou: float | None, *, test: float | None = None, **options: Any
) -> Path:
    """Write the `run.json` of a run; `miou` is None if it has not finished."""
    values = TrainOptions(out=folder, model="nano", **options).to_json()
    record: dict[str, Any] = {"options": values}
    if miou is not None:
        record |= {"best": {"val_miou": miou, "val_f_score": miou + 0.1}, "ended": "2026-11-26"}
    if test is not None:
        record["test"] = {"miou": test, "f_score": test}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_runs_that_differ_only_in_the_seed_are_a_group(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{projector}{seed}", miou, test=miou, seed=seed, projector=projector)
        for projector, mious in (("mul", (0.5, 0.7)), ("clap", (0.4, 0.4)))
        for seed, miou in enumerate(mious)
    ]
    assert markdown(compare_runs(runs)) == (
        "| projector | seeds | val mIoU | val F | test mIoU | test F |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| mul | 2 | 0.6000 ± 0.1414 | 0.7000 ± 0.1414 | 0.6000 ± 0.1414 | 0.6000 ± 0.1414 |\n"
        "| clap | 2 | 0.4000 ± 0.0000 | 0.5000 ± 0.0000 | 0.4000 ± 0.0000 | 0.4000 ± 0.0000 |\n"
    )


def test_folder_with_a_run_per_seed_is_a_group(tmp_path: Path) -> None:
    for name, lr in (("slow", 1e-4), ("fast", 1e-3)):
        for seed in (2, 10):
            run = tmp_path / name / f"seed-{seed}"
            write_run(run, 0.1 * seed / 2, seed=seed, lr=lr, clap="laion")
    groups = compare_runs([tmp_path / "slow", tmp_path / "fast"])
    assert [group.options for group in groups] == [{"lr": 1e-4}, {"lr": 1e-3}]
    assert [folder.name for folder in groups[0].folders] == ["seed-2", "seed-10"]
    assert groups[0].scores.keys() == {"val_miou", "val_f_score"}
    assert groups[0].scores["val_miou"].mean == pytest.approx(0.3)


def test_groups_without_a_difference_are_named_by_their_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name / "seed-1", 0.5, seed=1)
    text = latex(compare_runs([tmp_path / "one", tmp_path / "two"]))
    assert text.splitlines()[:3] == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"run & seeds & val mIoU & val F \\",
    ]
    assert f"{tmp_path}/one & 1 & 0.5000 & 0.6000 \\\\".replace("_", r"\_") in text


def test_latex_escapes_names_and_writes_plus_minus(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{data}{seed}", 0.5, seed=seed, data=data)
        for data in ("my_data", "other")
        for seed in (1, 2)
    ]
    assert r"my\_data & 2 & 0.5000 $\pm$ 0.0000 &" in latex(compare_runs(runs))


def test_unfinished_runs_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = write_run(tmp_path / "done", 0.5)
    write_run(tmp_path / "half", None)
    with caplog.at_level(logging.WARNING):
        (group,) = compare_runs([done, tmp_path / "half"])
    assert group.folders == (done,)
    assert f"{tmp_path / 'half'}: not finished; left out" in caplog.text
    with pytest.raises(UsageError, match="none of the runs"):
        compare_runs([tmp_path / "half"])


def test_folder_without_a_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run in this folder"):
        compare_runs([tmp_path])
