"""The recipes that users run on their own data."""

import json
import os
import re
import runpy
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from av2tsam_cli.cli.app import command_options
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


def test_the_cluster_fits_the_schema_of_ray() -> None:
    config = yaml.safe_load((RECIPES / "cluster" / "ray.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu"]["max_workers"] == config["max_workers"]


def test_the_recipes_for_clusters_use_options_that_exist() -> None:
    options = {name.split()[0]: found for name, found in command_options().items()}
    for path in (RECIPES / "cluster").iterdir():
        text = path.read_text().replace("\\\n", " ")
        for command, words in re.findall(r"av2tsam (train|segment) (.*)", text):
            known = {option.flag for option in options[command]}
            used = re.findall(r"(?<![\w-])--[a-z-]+", words.partition("`")[0])
            assert set(used) <= known, (path.name, command)


SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[3-4]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_CPUS_PER_TASK": "32",
}
STAND_INS = {
    "scontrol": 'if [ "$1" = show ]; then printf "gpu3\\ngpu4\\n"; else echo "scontrol $*"; fi',
    "srun": 'exec "$@"',
    "torchrun": """
        trap 'echo saved; exit 1' TERM
        echo "torchrun $*"
        while [ -n "${WAITS:-}" ]; do sleep 0.05; done
    """,
    "ray": 'echo "ray $*"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of two nodes, with stand-ins for the programs it starts."""
    for name, body in STAND_INS.items():
        program = tmp_path / name
        program.write_text(f"#!/usr/bin/env bash\n{body}\n")
        program.chmod(0o755)
    return {**os.environ, **SLURM, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def start_job(name: str, *words: str, env: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a script as Slurm does."""
    command = ["bash", str(RECIPES / "cluster" / name), *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)  # noqa: S603


def test_slurm_trains_with_a_process_per_gpu(slurm: dict[str, str]) -> None:
    job = start_job("train.sbatch", "--out", "runs/a b", env=slurm)
    assert job.communicate()[0] == (
        "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint gpu3:24711 "
        "--rdzv-id 4711 --max-restarts 3 --no-python av2tsam train --resume --out runs/a b\n"
    )
    assert job.returncode == 0


def test_slurm_queues_a_training_again_whose_time_is_up(slurm: dict[str, str]) -> None:
    job = start_job("train.sbatch", "--out", "runs/a", env=slurm | {"WAITS": "1"})
    assert job.stdout is not None
    assert job.stdout.readline().startswith("torchrun ")
    job.send_signal(signal.SIGTERM)
    assert job.communicate()[0].splitlines() == ["saved", "scontrol requeue 4711"]


def test_slurm_segments_on_all_nodes_with_ray(slurm: dict[str, str]) -> None:
    job = start_job("segment.sbatch", "clips", "--out", "masks", env=slurm)
    assert job.communicate()[0] == (
        "ray symmetric-run --address gpu3:24711 --min-nodes 2 --num-cpus 32 --num-gpus 4 -- "
        "av2tsam segment --ray auto --skip-existing --progress lines clips --out masks\n"
    )
    assert job.returncode == 0
