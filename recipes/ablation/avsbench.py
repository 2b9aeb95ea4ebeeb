"""Run the paper's ablation on AVSBench, or on data in its layout.

`python recipes/ablation/avsbench.py --subset s4 --model evf-sam2 --out runs/ablation-s4`

Each run trains one variant from the paper's initialisation with the loop of `av2tsam train`, whose
options all runs share, and scores its best epoch on the test split. Each adds a line to
`results.jsonl`; running the command again resumes an interrupted run and does the missing ones. The
table is printed and written to `table.md`. To use several GPUs, start the command once per GPU
(`CUDA_VISIBLE_DEVICES`) with different `--variants`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.options import OptionField, option_fields
from av2tsam_cli.training.callback import EpochRow, TrainingCallback
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.start import load_starting_point
from report import cell
from variants import VARIANTS, with_direct_prompt

SET_HERE = {"out", "resume", "overwrite", "init", "projector", "adapter", "devices", "seed", "test"}
"""Options of `av2tsam train` that differ between the runs, or that the script needs itself."""


class Printer(TrainingCallback):
    """Prints a line per epoch."""

    def on_epoch_end(self, row: EpochRow) -> None:
        """Print the loss and the validation scores."""
        print(f"  epoch {row.epoch}: loss {row.loss:.4f}, validation mIoU {row.val_miou:.4f}")


def run(name: str, seed: int, out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Train and score one variant, or resume it."""
    variant = VARIANTS[name]
    folder = out / f"{name}-{seed}"
    options = TrainOptions(
        **given | {"cache_features": given.get("cache_features", False) and not variant.adapter},
        out=folder,
        resume=(folder / "resume.safetensors").exists(),
        init="paper",
        projector=variant.projector,
        adapter=variant.adapter,
        seed=seed,
    )
    result = train(options, Printer(), network=None if variant.text_space else direct(options))
    if result.test is None:
        raise UsageError(f"{options.data}: has no test split; the ablation needs one")
    return {
        "variant": name,
        "seed": seed,
        "miou": result.test.miou,
        "f_score": result.test.f_score,
        "val_miou": result.best.val_miou,
        "best_epoch": result.best.epoch,
        "steps": result.steps,
        "options": json.loads(json.dumps(given, default=str)),
    }


def direct(options: TrainOptions) -> Av2tSam:
    """Return the starting network with an MLP from the projector to SAM's prompt."""
    torch.manual_seed(options.seed)
    network = load_starting_point(options).network
    network.text_sam = with_direct_prompt(network.text_sam, network.config).eval()
    return network


def table(rows: list[dict[str, Any]], column: str) -> str:
    """Return a Markdown table: mIoU ± standard deviation over seeds / mean F of each variant."""
    lines = [f"| | {column} |", "|---|---|"]
    for name, variant in VARIANTS.items():
        runs = [row for row in rows if row["variant"] == name]
        lines.append(f"| {variant.title} | {cell(runs) if runs else '-'} |")
    return "\n".join(lines) + "\n"


def read_rows(path: Path, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the finished runs, which must have the same options."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wanted = json.loads(json.dumps(given, default=str))
    if other := next((row["options"] for row in rows if row["options"] != wanted), None):
        raise UsageError(f"{path}: has runs with other options ({other}); choose a new --out")
    return rows


def add_option(parser: argparse.ArgumentParser, field: OptionField) -> None:
    """Add an option of `av2tsam train`; it has no value unless it is given."""
    shared: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    shared["help"] = field.help.replace("%", "%%")
    if field.is_flag:
        action = argparse.BooleanOptionalAction if field.negation else "store_true"
        parser.add_argument(field.flag, action=action, **shared)
    else:
        parser.add_argument(field.flag, type=field.parse, metavar=field.metavar, **shared)


def main() -> None:
    """Do all runs that have no result yet, and make the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", default="123", help="seeds, such as 1,2,3 (default: 123)")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all"
    )
    for field in option_fields(TrainOptions):
        if field.name not in SET_HERE:
            add_option(parser, field)
    given = vars(parser.parse_args())
    out, variants = given.pop("out"), given.pop("variants")
    seeds = [int(seed) for seed in given.pop("seeds").split(",")]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.jsonl"
    done = {(row["variant"], row["seed"]) for row in read_rows(path, given)}
    for name, seed in [(name, seed) for seed in seeds for name in variants]:
        if (name, seed) not in done:
            print(f"{VARIANTS[name].title}, seed {seed}")
            row = run(name, seed, out, given)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    column = f"{given.get('subset', TrainOptions.subset).upper()} test, mIoU / F"
    text = table(read_rows(path, given), column)
    (out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except Av2tsamError as error:
        sys.exit(str(error))
