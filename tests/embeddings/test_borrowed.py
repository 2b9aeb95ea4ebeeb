"""Modules of other packages are executed privately, without the `__init__` of their package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from av2tsam_cli.embeddings.borrowed import PRIVATE, borrow


@pytest.fixture
def noisy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose `__init__` fails and warns, with a module inside that can be borrowed."""
    inner = tmp_path / "noisy_package" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "noisy_package" / "__init__.py").write_text("raise RuntimeError('executed')\n")
    (inner / "__init__.py").write_text("raise RuntimeError('executed')\n")
    (inner / "sibling.py").write_text("VALUE = 7\n")
    (inner / "useful.py").write_text(
        "import warnings\nfrom .sibling import VALUE\nwarnings.warn('old', DeprecationWarning)\n"
    )
    (inner / "broken.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "noisy_package.inner"
    for name in [name for name in sys.modules if "noisy_package" in name]:
        del sys.modules[name]


def test_a_module_is_borrowed_once_under_a_private_name(noisy_package: str) -> None:
    module = borrow(f"{noisy_package}.useful")
    assert module.VALUE == 7
    assert module.__name__.startswith(PRIVATE)
    assert not any(name.startswith("noisy_package") for name in sys.modules)
    assert borrow(f"{noisy_package}.useful") is module


def test_borrowing_does_not_parse_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["av2tsam", "segment", "--no-such-option"])
    assert borrow("laion_clap.clap_module.htsat").HTSAT_Swin_Transformer


@pytest.mark.parametrize("name", ["no_such_package.module", "open_clip.no_such_module"])
def test_a_missing_module_is_an_error(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=name):
        borrow(name)


def test_a_module_that_fails_can_be_borrowed_again_later(noisy_package: str) -> None:
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            borrow(f"{noisy_package}.broken")
