"""The package `av2tsam`: public names, imported when they are used, with their real types."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import av2tsam

CONSUMER = """
import av2tsam

model = av2tsam.load_model("nano", device="cpu")
result = av2tsam.segment_video("clip.mp4", "out.mp4", model=model)
reveal_type(model)
reveal_type(result.outputs)
reveal_type(next(av2tsam.iter_masks("clip.mp4", model=model)))
reveal_type(av2tsam.WeightsError("text").exit_code)
reveal_type(av2tsam.__version__)
"""


@pytest.mark.parametrize("name", av2tsam.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(av2tsam, name)
    assert name in dir(av2tsam)
    assert isinstance(value, str) or value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        av2tsam.segment  # noqa: B018


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_typed_program_sees_the_types(tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    process = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "consumer.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    revealed = [line.split("is ")[1] for line in process.stdout.splitlines() if "Revealed" in line]
    assert revealed == [
        '"av2tsam_cli.inference.loading.LoadedModel"',
        '"tuple[pathlib.Path, ...]"',
        '"av2tsam_cli.values.MaskedFrame"',
        '"int"',
        '"str"',
    ], process.stdout
