"""Data sets in AVSBench's format: generated ones, and handmade ones of a few pixels."""

import csv
import shutil
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from av2tsam_cli.synth.dataset import write_dataset

RATE_HZ = 16_000


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 and MS3 with 2, 1 and 1 videos; do not modify."""
    out = tmp_path_factory.mktemp("generated")
    for subset in ("s4", "ms3"):
        write_dataset(out, subset=subset, videos=4, seed=3, split_sizes=(2, 1, 1), workers=1)
    return out


@pytest.fixture
def data(generated: Path, tmp_path: Path) -> Path:
    """A copy of `generated` that tests may damage."""
    return Path(shutil.copytree(generated, tmp_path / "data"))


def write_wav(path: Path, channels: Sequence[Any], rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (np.array(channels).T * 32768).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], 2, rate_hz, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture(name="write_wav")
def write_wav_fixture() -> Callable[..., Path]:
    """Write samples (channels, n) in [-1, 1] as a 16-bit WAV: `write_wav(path, samples)`."""
    return write_wav


def write_picture(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def avss(tmp_path: Path) -> Path:
    """AVSBench-semantic: v1s in train and test, v1m, v2; second k of a video has grey 10 k."""
    base = tmp_path / "avsbench_data" / "AVSBench_semantic"
    videos = [("one", "v1s", "train"), ("two", "v1s", "test"), ("three", "v1m", "val")]
    videos.append(("four", "v2", "train"))
    rows = [("0", name, "0", "0", "dog_man", label, split) for name, label, split in videos]
    header = ("vid", "uid", "s_min", "s_sec", "a_obj", "label", "split")
    write_rows(base / "metadata.csv", [header, *rows])
    for name, label, split in videos:
        seconds = 10 if label == "v2" else 5
        write_wav(base / label / name / "audio.wav", [np.zeros(seconds * RATE_HZ)] * 2)
        for k in range(seconds):
            write_picture(base / label / name / "frames" / f"{k}.jpg", np.full((12, 16, 3), 10 * k))
            mask = np.zeros((12, 16, 3))
            mask[:6, :, 2] = 64
            mask[6:9, :, 0] = 128
            if k == 0 or (label, split) != ("v1s", "train"):
                write_picture(base / label / name / "labels_rgb" / f"{k}.png", mask)
    return tmp_path / "avsbench_data"


Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def clear(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>" * 100)


DAMAGES: dict[str, Damage] = {
    "missing": Path.unlink,
    "truncated": truncate,
    "flipped byte": flip_byte,
    "empty": clear,
    "not an image": replace_by_text,
}


@pytest.fixture(params=list(DAMAGES), name="damage")
def damage_fixture(request: pytest.FixtureRequest) -> Damage:
    """Each kind of damage to an image file."""
    return DAMAGES[request.param]
