"""The recipes that users run on their own data."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from av2tsam_cli.synth.clips import sounding_mask
from av2tsam_cli.synth.render import Renderer

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"


def test_the_samples_are_those_of_their_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RECIPES / "samples")
    recipe = runpy.run_path(str(RECIPES / "samples" / "make.py"))
    for name, sample in recipe["SAMPLES"].items():
        paths = sorted((ROOT / "sample_media" / f"{name}_masks").iterdir())
        assert len(paths) == sample.seconds * recipe["FPS"]
        scene = recipe["compose"](sample)
        renderer = Renderer(scene, *recipe["SIZE"])
        for index in range(17, len(paths), 60):
            time_s = index / recipe["FPS"]
            true = sounding_mask(scene, renderer.frame(time_s)[1], time_s)
            mask = cv2.imread(str(paths[index]), cv2.IMREAD_GRAYSCALE)
            assert mask is not None
            assert np.mean((mask > 0) != true) < 1e-4


def test_no_change_of_relay_falls_on_a_whole_second() -> None:
    paths = sorted((ROOT / "sample_media" / "relay_masks").iterdir())
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    areas = np.array([np.mean(mask > 0) for mask in masks if mask is not None])
    changes = np.flatnonzero(np.abs(np.diff(areas)) > 0.005) + 1  # first frames that differ
    assert (changes / 25).tolist() == [1.4, 2.92, 3.88, 4.64, 5.24, 6.2]


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
