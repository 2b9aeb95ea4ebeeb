"""Other packages' modules are imported without what their packages do on import."""

import sys
from pathlib import Path

import pytest

from av2tsam_cli.embeddings.quiet import import_quietly, import_without_init


@pytest.fixture
def noisy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose `__init__` fails, with a module inside that is fine."""
    inner = tmp_path / "noisy_package" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "noisy_package" / "__init__.py").write_text("raise RuntimeError('ran')\n")
    (inner / "__init__.py").write_text("raise RuntimeError('ran')\n")
    (inner / "sibling.py").write_text("VALUE = 7\n")
    (inner / "useful.py").write_text(
        "import warnings\nfrom .sibling import VALUE\nwarnings.warn('old', DeprecationWarning)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "noisy_package.inner.useful"


def test_no_init_is_run_and_no_stand_in_stays(noisy_package: str) -> None:
    module = import_without_init(noisy_package)
    assert module.VALUE == 7
    assert "noisy_package" not in sys.modules
    assert import_without_init(noisy_package) is module


def test_the_users_arguments_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["av2tsam", "segment", "--no-such-option"])
    module = import_without_init("laion_clap.clap_module.htsat")
    assert module.HTSAT_Swin_Transformer


def test_a_missing_package_is_said_to_be_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        import_without_init("no_such_package.module")


def test_warnings_of_an_import_are_not_ours_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "warns_on_import.py").write_text("import warnings\nwarnings.warn('old')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_quietly("warns_on_import")
