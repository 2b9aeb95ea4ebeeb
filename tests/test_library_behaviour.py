"""Using the library leaves the process that uses it as it was.

Each test runs a script in a fresh process, because much of what could change is set only once.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "sample_media" / "duet.mp4"

SETUP = f"""
import logging
import signal
import sys
import threading
import warnings
from pathlib import Path

FOREIGN = ("laion_clap", "open_clip", "segment_anything", "torchlibrosa", "torchvision")

def threads_in_new_thread():
    import torch

    counts = []
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return counts[0]

def state():
    import torch

    return {{
        "threads": torch.get_num_threads(),
        "threads in a new thread": threads_in_new_thread(),
        "gradients": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "log levels": {{
            name: (log.level, log.handlers, log.disabled, log.propagate)
            for name, log in loggers_at_start.items()
        }},
        "root": (logging.root.level, list(logging.root.handlers)),
        "warnings": list(warnings.filters),
        "meta path": list(sys.meta_path),
        "path": list(sys.path),
        "arguments": list(sys.argv),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
    }}

def use_the_library(out):
    from av2tsam import iter_masks, load_model, segment_video

    model = load_model("nano", device="cpu")
    before, during = threads_in_new_thread(), set()
    result = segment_video(
        {str(SAMPLE)!r},
        Path(out) / "o.mp4",
        model=model,
        end=1.0,
        progress=lambda _: during.add(threads_in_new_thread()),
    )
    assert result.frames == 25, result
    assert during == {{before}}
    own = torch.get_num_threads()
    masks = iter_masks({str(SAMPLE)!r}, model=model, end=1.0)
    for _ in range(3):
        next(masks)
        assert (torch.get_num_threads(), threads_in_new_thread()) == (own, before)
    masks.close()

def import_packages():
    import torchvision
    import open_clip
    import segment_anything
    sys.argv[1:] = []  # laion_clap parses them
    import laion_clap

    assert torchvision.ops.nms and torchvision.transforms and torchvision.models
    assert open_clip.create_model and open_clip.transformer.VisionTransformer
    assert segment_anything.SamPredictor and segment_anything.modeling.Sam
    assert laion_clap.CLAP_Module
    from laion_clap.clap_module import htsat

    assert htsat.Spectrogram.__module__ == "torchlibrosa.stft"
    assert htsat.LogmelFilterBank.__module__ == "torchlibrosa.stft"
    assert sys.modules["laion_clap"] is laion_clap
    return {{
        name: dict(vars(module))
        for name, module in sys.modules.items()
        if name.split(".")[0] in FOREIGN
    }}

import torch
import torch._dynamo  # has import-time effects of its own

loggers_at_start = {{
    name: log for name, log in logging.root.manager.loggerDict.items()
    if isinstance(log, logging.Logger)
}}
"""


def run(script: str, *arguments: str) -> None:
    # With the number of threads that PyTorch chooses, not that of the tests.
    environment = {name: os.environ[name] for name in os.environ if name != "OMP_NUM_THREADS"}
    process = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", SETUP + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )
    assert process.returncode == 0, process.stderr


def test_packages_can_be_imported_after_the_library_was_used(tmp_path: Path) -> None:
    run(
        """
before = state()
use_the_library(sys.argv[1])
assert not [name for name in sys.modules if name.split(".")[0] in FOREIGN]
after = state()
assert {key for key in before if before[key] != after[key]} == set()
import_packages()
""",
        str(tmp_path),
    )


def test_packages_imported_before_stay_as_they_are(tmp_path: Path) -> None:
    run(
        """
out = sys.argv[1]
modules = import_packages()
before = state()
use_the_library(out)
after = state()
assert {key for key in before if before[key] != after[key]} == set()
for name, attributes in modules.items():
    now = vars(sys.modules[name])
    changed = [key for key in now.keys() | attributes if now.get(key) is not attributes.get(key)]
    assert not changed, (name, changed)
names = {name for name in sys.modules if name.split(".")[0] in FOREIGN}
assert names == set(modules), names ^ set(modules)
""",
        str(tmp_path),
    )


def test_thread_counts_that_the_process_chose_are_kept(tmp_path: Path) -> None:
    run(
        """
torch.set_num_threads(3)
counts, used = [], threading.Event()

def old_thread():
    torch.set_num_threads(2)
    ready.set()
    used.wait()
    counts.append(torch.get_num_threads())

ready = threading.Event()
thread = threading.Thread(target=old_thread)
thread.start()
ready.wait()
before = state()
use_the_library(sys.argv[1])
used.set()
thread.join()
assert state() == before
assert counts == [2]
""",
        str(tmp_path),
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import sys, av2tsam; assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)  # noqa: S603


@pytest.mark.parametrize(("arguments", "changed"), [(None, True), ([], False)])
def test_only_the_command_line_tunes_the_process(
    arguments: list[str] | None, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from av2tsam_cli import __main__

    calls: list[bool] = []
    monkeypatch.setattr(__main__, "tune_process", lambda: calls.append(True))
    monkeypatch.setattr("av2tsam_cli.cli.app.run_command", lambda _: 0)
    monkeypatch.setattr("av2tsam_cli.cli.isolation._allowed", threading.Event())
    monkeypatch.delitem(sys.modules, "ray", raising=False)  # other tests may have imported it
    assert __main__.main(arguments) == 0
    assert bool(calls) == changed
