"""From a name to a file."""

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


def test_a_path_is_itself(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"")
    assert locate.resolve(path) == path
    assert locate.resolve(str(path)) == path


def test_an_installed_model_by_its_name(home: Path) -> None:
    path = home / "evf-sam2.safetensors"
    path.write_bytes(b"")
    assert locate.resolve("evf-sam2") == path


def test_the_best_that_is_installed(home: Path) -> None:
    for name in ("evf-sam", "evf-sam2"):
        path = home / f"{name}.safetensors"
        path.write_bytes(b"")
        assert locate.resolve() == path


def test_a_sam_that_only_reads_is_the_best_for_phrases_alone(home: Path) -> None:
    text_only = home / "evf-sam-text.safetensors"
    text_only.write_bytes(b"")
    assert locate.resolve(hears=False) == text_only
    assert locate.resolve().stem == "nano"


def test_a_model_that_is_not_installed_says_where_it_is_from(home: Path) -> None:
    with pytest.raises(WeightsError, match=r"not installed.*YxZhang/evf-sam2-multitask"):
        locate.resolve("evf-sam2-text")


def test_an_unknown_name_lists_the_known_ones(home: Path) -> None:
    with pytest.raises(WeightsError, match="neither a file nor the name of a model"):
        locate.resolve("no-such-model")


def test_the_platforms_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AV2TSAM_HOME", raising=False)
    assert locate.home().name == "av2tsam"


def test_a_part_that_is_nowhere_is_named_with_the_commands_that_get_it(
    home: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        WeightsError,
        match=r"holds no clap, .*`av2tsam models pull clap-microsoft` fetches it; .*"
        r"`av2tsam models convert CLAP_weights_2023\.pth`",
    ):
        locate.companions(EVF_SAM2, ["clap"], tmp_path / "trained.safetensors")


def test_parts_are_found_beside_a_checkpoint_first(home: Path, tmp_path: Path) -> None:
    name = "clap-microsoft.safetensors"
    (home / name).touch()
    checkpoint = tmp_path / "trained.safetensors"
    assert locate.companions(EVF_SAM2, ["clap"], checkpoint) == [home / name]
    (tmp_path / name).touch()
    assert locate.companions(EVF_SAM2, ["clap"], checkpoint) == [tmp_path / name]
