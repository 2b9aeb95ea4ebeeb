"""Only the input itself is opened, unless URLs are allowed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.errors import Av2tsamError, MediaError
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.network import input_path
from av2tsam_cli.pipeline import iter_masks
from av2tsam_cli.stores import download

from ..conftest import tone, write_clip

MakeClip = Callable[..., Path]
SOUND = {"samples": tone(1.0)}
HLS = (
    "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n{key}#EXTINF:1.0,\n{what}\n"
    "#EXT-X-ENDLIST\n"
)
KEY = '#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n'
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n"
)
DASH = '<?xml version="1.0"?><MPD><Period><BaseURL>{url}/a.mp4</BaseURL></Period></MPD>'
NAMES = {
    "remote.m3u8": HLS.format(key="", what="{url}/a.ts"),
    "local.m3u8": HLS.format(key="", what="a.ts"),
    "absolute.m3u8": HLS.format(key="", what="{folder}/a.ts"),
    "key.m3u8": HLS.format(key=KEY, what="a.ts"),
    "remote.ffconcat": "ffconcat version 1.0\nfile {url}/a.mp4\n",
    "local.ffconcat": "ffconcat version 1.0\nfile a.mp4\n",
    "remote.sdp": SDP,
    "remote.mpd": DASH,
    "renamed.mp4": HLS.format(key="", what="{url}/a.ts"),
}
"""Files that name others."""


@dataclass
class Server:
    """A server on this computer that counts its requests."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    write_clip(folder / "a.ts", sounds=[SOUND])
    write_clip(folder / "a.mp4", sounds=[SOUND], container_options={"movflags": "+faststart"})
    served = Server(folder)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            del format
            served.requests.append(str(args[0]))

        def do_GET(self) -> None:
            if self.path not in served.redirects:
                super().do_GET()
                return
            self.send_response(302)
            self.send_header("Location", served.redirects[self.path])
            self.end_headers()

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    served.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield served
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def playlists(server: Server, tmp_path: Path) -> Path:
    """A folder with all files of `NAMES`, and with the files beside them that they name."""
    folder = tmp_path / "local"
    shutil.copytree(server.folder, folder)
    for name, text in NAMES.items():
        content = text.replace("{url}", server.url).replace("{folder}", str(folder))
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_playlist_opens_no_other_file(server: Server, playlists: Path, name: str) -> None:
    with pytest.raises(MediaError, match=r"names other files or URLs; set `allow_url`"):
        probe(playlists / name)
    assert server.requests == []


def test_a_number_in_a_name_opens_no_series_of_images(make_clip: MakeClip, tmp_path: Path) -> None:
    for name in ("i1.png", "i2.png", "i%d.png"):
        clip = make_clip("one.mov", times_s=[0], codec="png", pixel_format="rgb24")
        data = clip.read_bytes()
        begin = data.index(b"\x89PNG")
        (tmp_path / name).write_bytes(data[begin : data.index(b"IEND") + 8])
    assert len(list(read_frames(probe(tmp_path / "i1.png")))) == 1
    with pytest.raises(MediaError):
        probe(tmp_path / "i%d.png")


@pytest.mark.parametrize("kind", [b"url ", b"alis"])
def test_an_mp4_whose_media_are_elsewhere(server: Server, make_clip: MakeClip, kind: bytes) -> None:
    clip = make_clip()
    target = f"{server.url}/a.mp4".encode() + b"\0" + bytes(200)
    data = clip.read_bytes()
    place = data.index(b"\0\0\0\x0curl ")
    entry = (12 + len(target)).to_bytes(4, "big") + kind + bytes(4) + target
    changed = bytearray(data[:place] + entry + data[place + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.index(box) - 4
        changed[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(target)).to_bytes(
            4, "big"
        )
    clip.write_bytes(changed)
    for path in (clip, input_path(clip, allow_url=True)):
        with suppress(MediaError):
            assert len(list(read_frames(probe(path)))) == 25
    assert server.requests == []


@pytest.mark.parametrize("name", ["remote.m3u8", "local.m3u8", "absolute.m3u8", "local.ffconcat"])
def test_a_playlist_is_read_if_urls_are_allowed(server: Server, playlists: Path, name: str) -> None:
    frames = list(read_frames(probe(input_path(playlists / name, allow_url=True))))
    assert len(frames) == 25
    assert bool(server.requests) == (name == "remote.m3u8")


def test_a_playlist_on_a_server_opens_no_local_file(server: Server, playlists: Path) -> None:
    content = HLS.format(key="", what=f"file://{playlists}/a.ts")
    (server.folder / "list.m3u8").write_text(content)
    with pytest.raises(MediaError, match="cannot be opened"):
        probe(input_path(f"{server.url}/list.m3u8", allow_url=True))
    (server.folder / "list.m3u8").write_text(HLS.format(key="", what="a.ts"))
    assert (
        len(list(read_frames(probe(input_path(f"{server.url}/list.m3u8", allow_url=True))))) == 25
    )


def test_a_url_is_copied_or_opened(
    server: Server, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, url = tmp_path / "out", f"{server.url}/a.mp4?token=1"
    words = ["segment", url, "-o", str(out), "-f", "video", "--json", "--model", str(tiny_model)]
    words += ["--fps", "1", "--end", "0.5"]
    assert main(words) == 0
    assert len(server.requests) == 2  # one for the size, and one that copies it
    assert main([*words, "--allow-url", "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert f'"input": "{url}"' in printed
    assert [path.name for path in out.iterdir()] == ["a.mp4"]
    missing = f"{server.url}/missing.mp4"
    assert main([*words[:1], missing, *words[2:], "--allow-url"]) == 3
    assert f"{missing}: cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.mp4"])
def test_a_server_cannot_redirect_to_files(server: Server, tmp_path: Path, target: str) -> None:
    server.redirects["/moved.mp4"] = target
    with pytest.raises(Av2tsamError, match=r"/moved\.mp4: the server redirects .* to no web page"):
        download(f"{server.url}/moved.mp4", tmp_path / "a", size=None, go_on=lambda: True)
    assert not (tmp_path / "a").exists()


def test_the_masks_of_a_url_are_those_of_the_file(server: Server, tiny_model: Path) -> None:
    options: dict[str, Any] = {"model": tiny_model, "fps": 5, "end": 0.4}
    remote = [m.mask for m in iter_masks(f"{server.url}/a.mp4", allow_url=True, **options)]
    local = [m.mask for m in iter_masks(server.folder / "a.mp4", **options)]
    np.testing.assert_array_equal(remote, local)
