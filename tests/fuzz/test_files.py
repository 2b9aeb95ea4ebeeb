"""A sample of the fuzzer of files; `python -m tests.fuzz.files` runs all of it."""

from pathlib import Path

import pytest

from .files import case_names, run_case
from .hostile import Samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples.make(tmp_path_factory.mktemp("samples"))


@pytest.mark.filterwarnings("ignore")  # of zipfile and torch, while the files are made
def test_hostile_files_end_in_a_documented_exit_code(samples: Samples, tmp_path: Path) -> None:
    names = case_names(seed=0, counts={"checkpoints": 6, "others": 10})
    found = {}
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        if findings := run_case(name, samples, folder).findings:
            found[name] = findings
    assert found == {}
