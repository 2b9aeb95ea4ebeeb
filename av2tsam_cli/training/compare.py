"""Compare finished trainings: mean and standard deviation of their scores over seeds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from av2tsam_cli.errors import UsageError
from av2tsam_cli.training.options import RESULT_OPTIONS
from av2tsam_cli.training.run_folder import RECORD, corruption_errors, has_run, read_record

log = logging.getLogger(__name__)

COMPARED = ("data", *(name for name in RESULT_OPTIONS if name != "seed"))
"""Options in which groups of runs may differ."""
SCORES = {
    "val_miou": ("best", "val_miou"),
    "val_f_score": ("best", "val_f_score"),
    "test_miou": ("test", "miou"),
    "test_f_score": ("test", "f_score"),
}
"""Where `run.json` has each score of the best epoch."""
TITLES = {
    "val_miou": "val mIoU",
    "val_f_score": "val F",
    "test_miou": "test mIoU",
    "test_f_score": "test F",
}
"""Column titles of the scores."""

LATEX_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "_%#&"})
"""Signs that LaTeX would interpret, for `str.translate`."""


@dataclass(frozen=True)
class Statistic:
    """A score over the runs of a group."""

    mean: float
    """Mean over the runs, 0 to 1."""
    std: float | None
    """Sample standard deviation over the runs; None for a single run."""

    def text(self, sign: str = "±") -> str:
        """Return the mean and the standard deviation, such as 0.8123 ± 0.0041."""
        return f"{self.mean:.4f}" + ("" if self.std is None else f" {sign} {self.std:.4f}")


@dataclass(frozen=True)
class RunGroup:
    """Runs with the same options except the seed."""

    folders: tuple[Path, ...]
    """Their run folders."""
    options: dict[str, Any]
    """Options that differ between the groups of a comparison, with their values."""
    scores: dict[str, Statistic]
    """Scores that all runs of the group have: `val_miou`, `val_f_score`, `test_miou`,
    `test_f_score`."""


def compare_runs(paths: Sequence[Path]) -> list[RunGroup]:
    """Group runs by their options and summarise the scores of their best epochs.

    Runs that have not finished are left out with a warning.

    Args:
        paths: Run folders, and folders with one run per seed, as `--seeds` makes them. Each of the
            latter is a group; other runs with the same options except the seed are one together.

    Raises:
        UsageError: A folder contains no run, or no run has finished.
        MediaError: A `run.json` is corrupted.
    """
    groups: dict[object, list[tuple[Path, dict[str, Any]]]] = {}
    for path in paths:
        is_run = has_run(path)
        for folder in [path] if is_run else _seed_folders(path):
            record = read_record(folder)
            with corruption_errors(folder / RECORD):
                _check(record)
            if not record.get("ended"):
                log.warning("%s: not finished; left out", folder)
                continue
            key = tuple(map(str, _compared(record).values())) if is_run else path
            groups.setdefault(key, []).append((folder, record))
    if not groups:
        raise UsageError("none of the runs has finished; continue them with 'av2tsam train'")
    options = [_compared(records[0][1]) for records in groups.values()]
    differing = [name for name in COMPARED if len({str(each[name]) for each in options}) > 1]
    return [
        RunGroup(
            folders=tuple(folder for folder, _ in records),
            options={name: values[name] for name in differing},
            scores=_scores([record for _, record in records]),
        )
        for records, values in zip(groups.values(), options, strict=True)
    ]


def _seed_folders(path: Path) -> list[Path]:
    folders = [each.parent for each in path.glob(f"seed-*/{RECORD}")]
    if not folders:
        raise UsageError(f"{path}: no run in this folder, and no seed-* folders; check the path")
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name))


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record["options"].get(name) for name in COMPARED}


def _check(record: Mapping[str, Any]) -> None:
    """Check that a record has the options and scores of a run.

    Raises:
        LookupError: Something is missing.
        TypeError: Something is of another type.
        ValueError: A score is no number.
    """
    _compared(record)
    for section, key in SCORES.values():
        if record.get(section):
            float(record[section][key])


def _scores(records: Sequence[Mapping[str, Any]]) -> dict[str, Statistic]:
    scores = {}
    for name, (section, key) in SCORES.items():
        values = [record[section][key] for record in records if record.get(section)]
        if len(values) == len(records):
            scores[name] = Statistic(mean(values), stdev(values) if len(values) > 1 else None)
    return scores


def table(groups: Sequence[RunGroup], sign: str = "±") -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table with a row per group.

    A row starts with the options that differ between the groups, or with the folder if none does
    or two groups have the same.
    """
    labels = [[_label(value) for value in group.options.values()] for group in groups]
    head = list(groups[0].options)
    if len({tuple(label) for label in labels}) < len(groups) or not head:
        head.insert(0, "run")
        for label, group in zip(labels, groups, strict=True):
            label.insert(0, _name(group))
    present = [name for name in SCORES if any(name in group.scores for group in groups)]
    head += ["seeds", *(TITLES[name] for name in present)]
    rows = []
    for label, group in zip(labels, groups, strict=True):
        cells = (group.scores[n].text(sign) if n in group.scores else "" for n in present)
        rows.append([*label, str(len(group.folders)), *cells])
    return head, rows


def _label(value: object) -> str:
    return "default" if value is None else str(value)


def _name(group: RunGroup) -> str:
    folder = group.folders[0]
    return str(folder.parent if folder.name.startswith("seed-") else folder)


def markdown(groups: Sequence[RunGroup]) -> str:
    """Return the table in Markdown."""
    head, rows = table(groups)
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex(groups: Sequence[RunGroup]) -> str:
    """Return the table in LaTeX; it needs the package booktabs."""
    head, rows = table(groups, sign=r"$\pm$")
    labels = len(head) - 1 - sum(title in TITLES.values() for title in head)
    columns = "l" * labels + "r" * (len(head) - labels)
    body = "".join(_latex_row(row) for row in rows)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{_latex_row(head)}\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(LATEX_SPECIAL) for cell in cells) + " \\\\\n"
