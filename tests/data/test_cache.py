"""The cache returns what the encoders compute, even if its files were damaged."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from av2tsam_cli.data.avsbench import Clip, open_split, open_subset
from av2tsam_cli.data.cache import (
    EmbeddingCache,
    cached_features,
    default_folder,
    encoder_key,
    network_frames,
)
from av2tsam_cli.data.clips import read_clip_frames, read_clip_windows
from av2tsam_cli.errors import Av2tsamError, MediaError, UsageError
from av2tsam_cli.hub.checkpoint import load_network, save_network
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import Sam2Config
from av2tsam_cli.values import AudioWindow

from ..tiny import TINY_SAM2


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> Av2tSam:
    return load_network(tiny_model)


@pytest.fixture
def clips(generated: Path) -> tuple[Clip, ...]:
    return open_subset(generated, "s4")


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def without_adapter(network: Av2tSam, sam: Sam2Config | None = None) -> Av2tSam:
    config = replace(network.config, adapter=False, sam=sam or network.config.sam)
    torch.manual_seed(1)
    return build(config).eval()


def test_cached_embeddings_equal_those_of_the_encoders(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    cache = EmbeddingCache.open_or_build(tmp_path, network, clips)
    assert cache.clips == clips
    for clip in clips:
        frames = read_clip_frames(clip, clip.labelled)
        windows = read_clip_windows(clip, clip.labelled, network.clap.config.rate_hz)
        with torch.inference_mode():
            clip_embeddings = network.embed_frames(network_frames(network.config, frames))
            clap_embeddings = network.embed_windows(torch.from_numpy(windows))
        cached = cache.read(clip, clip.labelled)
        # The last bits depend on the number of threads.
        torch.testing.assert_close(cached.clip, clip_embeddings)
        torch.testing.assert_close(cached.clap, clap_embeddings)
        levels = [AudioWindow(w, k, len(w)).level_dbfs for k, w in enumerate(windows)]
        assert cached.level_dbfs.tolist() == levels
    one = cache.read(clips[2], [3])
    assert (one.clip.shape, one.clap.shape, one.image) == ((1, 16), (1, 16), ())


def test_nothing_is_computed_twice(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    EmbeddingCache.open_or_build(
        tmp_path, network, clips[:3], progress=lambda *counts: calls.append(counts)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    before = stamps(tmp_path)
    assert {path.suffix for path in before} == {".npy"}
    calls.clear()
    EmbeddingCache.open_or_build(
        tmp_path, network, clips, progress=lambda *counts: calls.append(counts)
    )
    assert calls == [(1, 1)]  # only the new clip
    assert before.items() <= stamps(tmp_path).items()


def test_files_depend_on_weights_and_content(network: Av2tSam, data: Path, tmp_path: Path) -> None:
    clips = open_split(data, "s4", "val")
    old = EmbeddingCache.open_or_build(tmp_path / "cache", network, clips)
    other = build(network.config).eval()
    other.clap.load_state_dict(network.clap.state_dict())
    new = EmbeddingCache.open_or_build(tmp_path / "cache", other, clips)
    assert new.files[clips[0]][0] != old.files[clips[0]][0]
    assert new.files[clips[0]][1] == old.files[clips[0]][1]  # CLAP is the same
    clips[0].frames[1].write_bytes(clips[0].frames[0].read_bytes())
    changed = EmbeddingCache.open_or_build(tmp_path / "cache", network, clips)
    assert torch.equal(changed.read(clips[0], [1]).clip, old.read(clips[0], [0]).clip)
    assert changed.files[clips[0]][1] == old.files[clips[0]][1]  # the sound is unchanged


def test_an_encoders_key_depends_on_every_weight_and_setting(network: Av2tSam) -> None:
    other = build(network.config).clip
    other.load_state_dict(network.clip.state_dict())
    assert encoder_key(other, 1) == encoder_key(network.clip, 1)
    assert encoder_key(other, 2) != encoder_key(network.clip, 1)
    assert encoder_key(other.bfloat16(), 1) != encoder_key(network.clip, 1)
    other.float().load_state_dict(network.clip.state_dict())
    with torch.no_grad():
        next(other.parameters()).view(-1)[-1].add_(1e-3)
    assert encoder_key(other, 1) != encoder_key(network.clip, 1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-60] ^= 1
    path.write_bytes(content)


def write_object_array(path: Path) -> None:
    np.save(path, np.array([{"not": "numbers"}], dtype=object), allow_pickle=True)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps([1.0]))


def clear(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [truncate, flip_bit, write_object_array, write_pickle, clear, Path.unlink]
)
def test_a_damaged_file_of_the_cache_is_computed_again(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = EmbeddingCache.open_or_build(tmp_path, network, clips)
    path = cache.files[clips[1]][1]
    content, before = path.read_bytes(), stamps(tmp_path)
    damage(path)
    again = EmbeddingCache.open_or_build(tmp_path, network, clips)
    assert path.read_bytes() == content
    assert torch.equal(again.read(clips[1], [0]).clap, cache.read(clips[1], [0]).clap)
    changed = {p for p, stamp in stamps(tmp_path).items() if before.get(p) != stamp}
    assert path in changed
    assert {p.parent for p in changed} == {path.parent}  # CLIP's files are unchanged


def test_the_error_names_a_file_that_disappears(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    cache = EmbeddingCache.open_or_build(tmp_path, network, clips)
    truncate(cache.files[clips[0]][0])
    shutil.rmtree(cache.files[clips[0]][1].parent)
    with pytest.raises(MediaError, match="run again"):
        cache.read(clips[0], [0])


def test_a_damaged_clip_raises_an_error_or_is_skipped_and_listed(
    network: Av2tSam, data: Path, tmp_path: Path
) -> None:
    clips = open_subset(data, "s4")
    clips[0].sound.write_bytes(b"RIFFnonsense")
    clips[2].frames[1].unlink()
    with pytest.raises(MediaError) as caught:
        EmbeddingCache.open_or_build(tmp_path / "cache", network, clips)
    assert str(clips[2].frames[1]) in str(caught.value)
    cache = EmbeddingCache.open_or_build(tmp_path / "cache", network, clips, skip_bad=True)
    assert cache.clips == (clips[1], clips[3])
    assert [problem.clip for problem in cache.skipped] == [clips[0], clips[2]]
    assert all(path.is_file() for files in cache.files.values() for path in files)
    alone = EmbeddingCache.open_or_build(tmp_path / "cache", network, clips[:1], skip_bad=True)
    assert alone.clips == ()


def test_an_interrupted_run_continues_where_it_stopped(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache.open_or_build(tmp_path, network, clips, progress=interrupt)
    before = stamps(tmp_path)
    assert len(before) == 6
    EmbeddingCache.open_or_build(tmp_path, network, clips)
    assert before.items() <= stamps(tmp_path).items()


def test_the_networks_mode_is_restored(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    network = build(network.config)
    network.train()
    network.clip.eval()
    before = {name: module.training for name, module in network.named_modules()}
    EmbeddingCache.open_or_build(tmp_path / "a", network, clips[:1])
    assert {name: module.training for name, module in network.named_modules()} == before
    assert torch.is_grad_enabled()
    trained = EmbeddingCache.open_or_build(tmp_path / "a", network.eval(), clips[:1])
    assert trained.files[clips[0]][1].parent.parent == tmp_path / "a"


@pytest.mark.parametrize("kind", ["sam", "sam2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_image_features_are_cached_on_request(
    network: Av2tSam,
    clips: tuple[Clip, ...],
    tmp_path: Path,
    kind: str,
    dtype: torch.dtype,
) -> None:
    save_network(
        without_adapter(network, TINY_SAM2 if kind == "sam2" else None), tmp_path / "plain"
    )
    plain = load_network(tmp_path / "plain", dtype=dtype)
    clip = clips[2]
    cache = EmbeddingCache.open_or_build(tmp_path, plain, [clip], image=True)
    maps = cache.read(clip, [1, 4]).image
    assert len(maps) == (1 if kind == "sam" else 3)
    assert {level.dtype for level in maps} == {dtype}
    with torch.inference_mode():
        features = cached_features(plain, maps)
        frames = network_frames(plain.config, read_clip_frames(clip, [1, 4]))
        images = plain.prepare(frames)[0]
        expected = plain.text_sam.encode_image(images)
    cached = (features.embedding, *features.high_res)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for level, fresh in zip(cached, (expected.embedding, *expected.high_res), strict=True):
        torch.testing.assert_close(level, fresh, atol=tolerance, rtol=tolerance)


def test_image_features_are_not_cached_with_adapters(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="set `adapter` to False"):
        EmbeddingCache.open_or_build(tmp_path, network, clips, image=True)


def test_a_cache_that_cannot_be_written_is_one_clear_error(
    network: Av2tSam, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Av2tsamError, match=r"cannot be written .*`cache`") as caught:
        EmbeddingCache.open_or_build(tmp_path / "file", network, clips)
    assert caught.value.exit_code == 1


def test_the_default_folder_is_next_to_the_installed_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "embeddings"


FILL_CACHE = """
import hashlib, sys, time
from pathlib import Path
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.data.avsbench import open_subset
from av2tsam_cli.data.cache import EmbeddingCache

model, data, folder, start = map(Path, sys.argv[1:])
network = load_network(model)
clips = open_subset(data, "s4") + open_subset(data, "ms3")
(start / str(time.time_ns())).touch()
for _ in range(60_000):  # both begin at the same moment, unless the other process failed
    if len(list(start.iterdir())) == 2:
        break
    time.sleep(0.001)
cache = EmbeddingCache.open_or_build(folder, network, clips)
digest = hashlib.sha256()
for clip in cache.clips:
    embeddings = cache.read(clip, clip.labelled)
    digest.update(embeddings.clip.numpy().tobytes())
    digest.update(embeddings.clap.numpy().tobytes())
print(digest.hexdigest())
"""


def test_two_simultaneous_processes_fill_the_cache_identically(
    tiny_model: Path, generated: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    paths = (tiny_model, generated, tmp_path / "cache", start)
    command = [sys.executable, "-c", FILL_CACHE, *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(  # noqa: S603 - our own interpreter and code
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0]
    files = list((tmp_path / "cache").rglob("*"))
    assert {path.suffix for path in files if path.is_file()} == {".npy"}  # no partial file
    assert len([path for path in files if path.is_file()]) == 24
