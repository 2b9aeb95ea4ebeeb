"""The recipes that users run on their own data."""

import json
import runpy
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[1] / "recipes"


def test_the_ablation_trains_every_variant_on_avsbench_and_makes_one_table(
    generated: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(RECIPES / "ablation")
    out = tmp_path / "ablation"

    def run(*words: object) -> str:
        """Run the recipe and return what it prints."""
        options = ["--data", generated, "--subset", "s4", "--model", tiny_model, "--device", "cpu"]
        options += ["--cache", tmp_path / "cache", "--max-steps", 1, "--lr", 1e-3, "--out", out]
        argv = ["avsbench.py", *options, *words]
        monkeypatch.setattr("sys.argv", [str(word) for word in argv])
        runpy.run_path(str(RECIPES / "ablation" / "avsbench.py"), run_name="__main__")
        return capsys.readouterr().out

    run()
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    variants = ["direct", "clap", "clip", "product", "adapters"]
    assert [(row["variant"], row["seed"]) for row in rows] == [(name, 123) for name in variants]
    assert len({row["miou"] for row in rows}) == len(rows)
    options = json.loads((out / "adapters-123" / "run.json").read_text())["options"]
    assert (options["seed"], options["lr"], options["init"]) == (123, 1e-3, "paper")
    assert (options["adapter"], options["projector"]) == (True, "mul")
    text = run("--seeds", "123,2", "--variants", "clap")  # one run is missing
    assert text.startswith("CLAP in the text space, seed 2\n")
    table = (out / "table.md").read_text()
    assert text.endswith(table + "\n")
    assert (len(table.splitlines()), table.count("±")) == (2 + len(variants), 1)
    assert run("--seeds", "123,2", "--variants", "clap") == table + "\n"  # everything is done
    with pytest.raises(SystemExit, match="has runs with other options"):
        run("--epochs", 2)
