"""Finding the files of models and of their parts."""

from pathlib import Path

import pytest

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub import locate
from av2tsam_cli.model.config import EVF_SAM2


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_path_resolves_to_itself(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"")
    assert locate.resolve(path) == path
    assert locate.resolve(str(path)) == path


def test_name_resolves_to_the_installed_file(home: Path) -> None:
    path = home / "evf-sam2.safetensors"
    path.write_bytes(b"")
    assert locate.resolve("evf-sam2") == path


def test_default_is_the_best_installed_model(home: Path) -> None:
    for name in ("evf-sam", "evf-sam2"):
        path = home / f"{name}.safetensors"
        path.write_bytes(b"")
        assert locate.resolve() == path


def test_text_only_model_is_the_default_for_text_prompts(home: Path) -> None:
    text_only = home / "evf-sam-text.safetensors"
    text_only.write_bytes(b"")
    assert locate.resolve(use="text") == text_only
    assert locate.resolve().stem == "nano"


def test_error_for_a_missing_model_names_its_repository(home: Path) -> None:
    with pytest.raises(WeightsError, match=r"not installed.*YxZhang/evf-sam2-multitask"):
        locate.resolve("evf-sam2-text")


def test_error_for_an_unknown_name_lists_the_models(home: Path) -> None:
    with pytest.raises(WeightsError, match="neither a file nor the name of a model"):
        locate.resolve("no-such-model")


def test_default_folder_is_in_the_platforms_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AV2TSAM_HOME", raising=False)
    assert locate.home().name == "av2tsam"


def test_error_for_a_missing_part_names_the_commands_that_install_it(
    home: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        WeightsError,
        match=r"contains no clap, .*run 'av2tsam models pull clap-microsoft', .*"
        r"'av2tsam models convert CLAP_weights_2023\.pth'",
    ):
        locate.part_file(EVF_SAM2, "clap", tmp_path / "trained.safetensors")


def test_parts_beside_the_checkpoint_come_first(home: Path, tmp_path: Path) -> None:
    name = "clap-microsoft.safetensors"
    (home / name).touch()
    checkpoint = tmp_path / "trained.safetensors"
    assert locate.part_file(EVF_SAM2, "clap", checkpoint) == home / name
    (tmp_path / name).touch()
    assert locate.part_file(EVF_SAM2, "clap", checkpoint) == tmp_path / name
