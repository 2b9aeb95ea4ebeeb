"""Make the table and the plot: `python recipes/ablation/report.py runs/ablation docs`.

Writes `ablation-table.md` and `ablation.png`; the plot needs matplotlib.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl

from variants import VARIANTS

mpl.use("agg")
from matplotlib import pyplot as plt

SIZES = (50, 200, 1000)
Runs = dict[tuple[str, str, int], list[dict[str, float]]]


def read(path: Path) -> Runs:
    """Read the results by data set, variant and number of clips."""
    runs: Runs = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        runs.setdefault((row["data"], row["variant"], row["clips"]), []).append(row)
    return runs


def cell(runs: list[dict[str, float]]) -> str:
    """Format the mean and standard deviation of mIoU over seeds, and the mean F."""
    miou = [run["miou"] for run in runs]
    spread = f" ± {stdev(miou):.3f}" if len(miou) > 1 else ""
    return f"{mean(miou):.3f}{spread} / {mean(run['f_score'] for run in runs):.3f}"


def table(runs: Runs) -> str:
    """Return a Markdown table: a row per variant, a column per number of clips."""
    titles = [*(f"{size:,} clips" for size in SIZES), "one object alone, 200 clips"]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, variant in VARIANTS.items():
        keys = [*(("several", name, size) for size in SIZES), ("alone", name, 200)]
        cells = [cell(runs[key]) if key in runs else "-" for key in keys]
        lines.append(f"| {variant.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(runs: Runs, path: Path) -> None:
    """Plot mIoU over the number of labelled clips, with a dot per seed."""
    figure, axes = plt.subplots(figsize=(7, 5.2))
    for name, variant in VARIANTS.items():
        sizes = [size for size in SIZES if ("several", name, size) in runs]
        groups = [[run["miou"] for run in runs["several", name, size]] for size in sizes]
        (line,) = axes.plot(sizes, [mean(group) for group in groups], label=variant.title)
        for size, group in zip(sizes, groups, strict=True):
            axes.plot([size] * len(group), group, "o", color=line.get_color(), markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.set_xlabel("labelled clips")
    axes.set_ylabel("mIoU on 200 test clips")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("docs", type=Path)
    args = parser.parse_args()
    runs = read(args.run / "results.jsonl")
    (args.docs / "ablation-table.md").write_text(table(runs))
    plot(runs, args.docs / "ablation.png")
    print(table(runs))


if __name__ == "__main__":
    main()
