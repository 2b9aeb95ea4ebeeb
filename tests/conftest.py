"""Fixtures: tiny clips written with PyAV, with the requested irregularities, and a tiny model."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli import stores

from .avsbench_fixtures import avss as avss
from .avsbench_fixtures import damage_fixture as damage_fixture
from .avsbench_fixtures import data as data
from .avsbench_fixtures import generated as generated
from .avsbench_fixtures import write_wav_fixture as write_wav_fixture
from .fake_hub import Hub, serve

if TYPE_CHECKING:
    from .object_store import ObjectStore, Proxy

TICK = Fraction(1, 12_800)
SOUND_CHUNK = 1024
SAMPLES = Path(__file__).parents[1] / "sample_media"
LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "3.0",
    4: "4.0",
    5: "5.0",
    6: "5.1",
    8: "7.1",
    16: "hexadecagonal",
}
"""FFmpeg's name of the layout of a number of channels."""


def grey_step(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Frame k has the grey level 40 + 6 k; its top left quarter is white, to show orientation."""
    picture = np.full((height, width, 3), 40 + 6 * (index % 30), np.uint8)
    picture[: height // 2, : width // 2] = 255
    return picture


def tone(
    seconds: float, rate_hz: int = 48_000, hz: float = 440.0, channels: int = 1
) -> npt.NDArray[np.float32]:
    """A sine wave with amplitude 0.5, float32, (channels, samples)."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = 0.5 * np.sin(2 * np.pi * hz * time_s)
    return np.tile(wave.astype(np.float32), (channels, 1))


def write_clip(
    path: Path,
    *,
    times_s: Sequence[float] | None = None,
    seconds: float = 1.0,
    rate: int | Fraction = 25,
    size: tuple[int, int] = (64, 48),
    picture: Callable[[int, int, int], npt.NDArray[Any]] = grey_step,
    picture_format: str = "rgb24",
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int | None = None,
    mirrored: bool = False,
    sample_aspect: Fraction = Fraction(1),
    tick: Fraction = TICK,
    colours: dict[str, int] | None = None,
    sounds: Sequence[dict[str, Any]] = (),
    sound_first: bool = False,
    extra_videos: Sequence[dict[str, Any]] = (),
    subtitles: bool = False,
) -> Path:
    """Write one clip.

    A sound is a dict: samples (channels, n); rate_hz; start_s; codec; options; language;
    disposition. An extra video is a dict: size; codec; frames; disposition.
    """
    times_s = (
        [float(k / rate) for k in range(round(seconds * rate))] if times_s is None else times_s
    )
    with av.open(str(path), mode="w", options=container_options or {}) as container:
        tracks = [_add_sound(container, sound) for sound in sounds] if sound_first else []
        video: Any = container.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height = size
        video.pix_fmt = pixel_format
        video.codec_context.time_base = tick
        video.codec_context.sample_aspect_ratio = sample_aspect
        for name, value in (colours or {}).items():
            setattr(video.codec_context, name, value)
        if rotation is not None:
            video.set_display_rotation(rotation, mirrored)
        if not sound_first:
            tracks = [_add_sound(container, sound) for sound in sounds]
        extras = [_add_extra(container, extra) for extra in extra_videos]
        titles = container.add_mux_stream("mov_text") if subtitles else None
        for index, time_s in enumerate(times_s):
            image = av.VideoFrame.from_ndarray(picture(index, *size), format=picture_format)
            image = image.reformat(
                format=pixel_format,
                dst_colorspace=(colours or {}).get("colorspace"),
                dst_color_range=(colours or {}).get("color_range"),
            )
            image.pts, image.time_base = round(time_s / tick), tick
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        if titles is not None:
            _write_subtitle(container, titles)
        for extra, spec in zip(extras, extra_videos, strict=True):
            _write_extra(container, extra, spec)
        for track, sound in zip(tracks, sounds, strict=True):
            _write_sound(container, track, sound)
    return path


def write_sound(path: Path, sound: dict[str, Any]) -> Path:
    """Write a file with one sound, given as in `write_clip`, and no video."""
    with av.open(str(path), mode="w") as container:
        _write_sound(container, _add_sound(container, sound), sound)
    return path


def cut_sample(name: str, seconds: float, to: Path) -> Path:
    """Copy the beginning of a sample, without encoding it again."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with av.open(SAMPLES / name) as source, av.open(to, "w") as target:
        tracks = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.pts is not None and packet.pts * packet.time_base < seconds:
                packet.stream = tracks[packet.stream]
                target.mux(packet)
    return to


def _add_sound(container: Any, sound: dict[str, Any]) -> Any:
    codec, rate_hz = sound.get("codec", "aac"), sound.get("rate_hz", 48_000)
    track = container.add_stream(codec, rate=rate_hz, options=sound.get("options", {}))
    track.codec_context.layout = LAYOUTS[sound["samples"].shape[0]]
    track.codec_context.bit_rate = sound.get("bit_rate", 128_000)
    if "language" in sound:
        track.metadata["language"] = sound["language"]
    if "disposition" in sound:
        track.disposition = sound["disposition"]
    return track


def _write_sound(container: Any, track: Any, sound: dict[str, Any]) -> None:
    rate_hz, samples = sound.get("rate_hz", 48_000), sound["samples"]
    pcm = (samples * 32767).astype(np.int16)
    skip = sound.get("gap", (0, 0))
    for begin in range(0, pcm.shape[1], SOUND_CHUNK):
        chunk = pcm[:, begin : begin + SOUND_CHUNK]
        if skip[0] <= begin < skip[1]:
            continue
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(chunk.T.reshape(1, -1)),
            format="s16",
            layout=track.codec_context.layout.name,
        )
        frame.sample_rate = rate_hz
        frame.pts = begin + round(sound.get("start_s", 0.0) * rate_hz)
        frame.time_base = Fraction(1, rate_hz)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))


def _write_subtitle(container: Any, titles: Any) -> None:
    packet = av.Packet(b"\x00\x05Hello")
    packet.pts = packet.dts = 0
    packet.duration, packet.time_base, packet.stream = 900, Fraction(1, 1000), titles
    container.mux(packet)


def _add_extra(container: Any, extra: dict[str, Any]) -> Any:
    stream = container.add_stream(extra.get("codec", "libx264"), rate=25)
    stream.width, stream.height = extra["size"]
    stream.pix_fmt = extra.get("pixel_format", "yuv420p")
    stream.disposition = extra.get("disposition", 0)
    return stream


def _write_extra(container: Any, stream: Any, extra: dict[str, Any]) -> None:
    for index in range(extra.get("frames", 1)):
        image = np.full((stream.height, stream.width, 3), 200, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
    container.mux(stream.encode(None))


@pytest.fixture(scope="session", autouse=True)
def _signals_are_not_ignored() -> None:
    """Undo what shells and nohup do to background jobs, which ignore SIGINT or SIGHUP."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _no_defaults_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the files and environment variables in which the user set defaults of options."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for name in [name for name in os.environ if name.startswith("AV2TSAM_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip into the test's folder: `make_clip("a.mp4", seconds=1, sounds=[...])`."""

    def make(name: str = "clip.mp4", **what: Any) -> Path:
        return write_clip(tmp_path / name, **what)

    return make


@pytest.fixture(name="tone")
def tone_fixture() -> Callable[..., npt.NDArray[np.float32]]:
    """A sine wave with amplitude 0.5, float32, (channels, samples)."""
    return tone


@pytest.fixture
def corrupt_packets() -> Callable[..., None]:
    """Overwrite the bytes of some packets of the first video or audio stream of a file."""

    def overwrite(path: Path, packets: Iterable[int], kind: str = "video") -> None:
        with av.open(str(path)) as container:
            spans = [(p.pos or 0, p.size) for p in container.demux(**{kind: 0}) if p.size]
        data = bytearray(path.read_bytes())
        for index in packets:
            begin, size = spans[index]
            data[begin : begin + size] = b"\xaa" * size
        path.write_bytes(data)

    return overwrite


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a complete network with fixed random weights, which takes 5 ms per frame.

    Its audio is at 8 kHz, its frames have 64 pixels per side, its vocabulary four words, and its
    masks cover about half of each frame.
    """
    import torch

    from av2tsam_cli.hub.checkpoint import save_network
    from av2tsam_cli.model.av2tsam import build

    from .tiny import TINY_CHECKPOINT

    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(build(TINY_CHECKPOINT).eval(), path)
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hugging Face hub; add files to its `repositories`."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub = Hub()
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def object_server() -> Iterator["ObjectStore"]:
    """A server with the protocol of S3, started for the first test that needs it."""
    from .object_store import serve_objects

    with serve_objects() as served:
        yield served


@pytest.fixture
def store(object_server: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> Iterator["ObjectStore"]:
    """An empty bucket; its keys are in the environment, and no request is repeated often."""
    from s3fs import S3FileSystem

    from .object_store import KEYS

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setattr(stores, "WAITS_S", (0.0,))
    S3FileSystem.clear_instance_cache()
    object_server.clear()
    yield object_server
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def proxy(store: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> Iterator["Proxy"]:
    """The connection to the store."""
    from .object_store import Proxy

    proxy = Proxy(store.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()
