"""Reports: their data, and what a browser makes of them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av2tsam_cli.media.probe import probe
from av2tsam_cli.outputs.encoding import choose_encoding
from av2tsam_cli.outputs.report import EMBEDDED_BYTES, MAX_SPANS, Report, Timeline
from av2tsam_cli.segment_options import Format, SegmentOptions
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

from ..browser import Page, opened_page

MakeClip = Callable[..., Path]
HOSTILE = "</script><script>document.title = 'broken'</script><!-- & \" \u2028 <b>dog</b>"
NAME = "a clip #1?"
"""With what has a meaning in URLs."""
RATE, FRAMES, SIZE = 10, 30, (64, 48)


def frames(*names: str, start_s: float = 0.0) -> Iterator[MaskedFrame]:
    """Each name is in view for an equal part of three seconds, the first of them twice."""
    shown = [*names, names[0]]
    for index in range(FRAMES):
        labels = np.zeros(SIZE[::-1], np.uint8)
        k = index * len(shown) // FRAMES
        labels[10:20, 10:30] = k % len(names) + 1
        picture = Frame(np.full((*SIZE[::-1], 3), 99, np.uint8), start_s + index / RATE, index)
        sources = SourceMasks(names, labels, (0.9,) * len(names))
        yield MaskedFrame(
            picture, labels > 0, "computed", sources, score=0.9, level_dbfs=-20.0 - index
        )


@pytest.fixture
def report(make_clip: MakeClip, tmp_path: Path) -> Callable[..., Path]:
    """Write a report about a clip whose frames can be told apart, and that browsers can play."""

    def write(
        *names: str, kind: Format = "video", suffix: str = ".webm", start_s: float = 0.0,
        padding: int = 0, card: dict[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        clip = make_clip(
            f"{NAME}{suffix}", seconds=3, rate=RATE, size=SIZE, codec="libvpx-vp9",
            options={"deadline": "realtime", "cpu-used": "8", "g": "5", "crf": "10"},
        )  # fmt: skip
        if padding:  # an empty box, which players skip
            with clip.open("ab") as file:
                file.write(padding.to_bytes(4) + b"free")
                file.truncate(file.tell() + padding - 8)
        info = probe(clip)
        encoding = None
        if kind == "video":
            encoding = choose_encoding(clip, "yuv420p", codec="vp9")
        path = tmp_path / "pages" / "r.html"
        with Report(
            path,
            info=info,
            video=info.video[0],
            options=SegmentOptions(names=True, start=start_s),
            kind=kind,
            encoding=encoding,
            outputs=[clip],
            model={"name": "tiny", **(card or {})},
            overwrite=False,
        ) as writer:
            for masked in frames(*(names or ("dog", "bell")), start_s=start_s):
                writer.write(masked)
        return path

    return write


def data_of(path: Path) -> dict[str, Any]:
    script = r'<script type="application/json" id="data">(.*?)</script>'
    (text,) = re.findall(script, path.read_text("utf-8"), re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_page_has_the_timeline_the_settings_and_the_model(report: Callable[..., Path]) -> None:
    found = data_of(report("dog", "bell", card={"scores": {"miou": 0.5}}))
    assert found["times"] == pytest.approx([k / RATE for k in range(FRAMES)])
    assert found["end_s"] == FRAMES / RATE
    assert found["levels"] == [-20 - k for k in range(FRAMES)]
    area = 200 / (SIZE[0] * SIZE[1])
    assert found["areas"] == pytest.approx([area] * FRAMES, abs=1e-4)
    dog, bell = found["sources"]
    assert (dog["name"], bell["name"]) == ("dog", "bell")
    assert [value > 0 for value in dog["areas"]] == [True] * 10 + [False] * 10 + [True] * 10
    assert [value > 0 for value in bell["areas"]] == [False] * 10 + [True] * 10 + [False] * 10
    assert ["--names", "on"] in found["settings"]
    assert found["model"] == {"name": "tiny", "scores": {"miou": 0.5}}
    assert found["outputs"][0]["link"] == "../a%20clip%20%231%3F.webm"


def test_names_cannot_break_out_of_the_page(report: Callable[..., Path]) -> None:
    page = report(HOSTILE, "bell")
    assert data_of(page)["sources"][0]["name"] == HOSTILE
    assert page.read_text("utf-8").count("</script>") == 2


def test_a_small_video_is_a_part_of_the_page(report: Callable[..., Path]) -> None:
    assert set(data_of(report())["video"]) == {"type", "base64"}


def test_without_a_video_for_browsers_the_page_says_why(report: Callable[..., Path]) -> None:
    found = data_of(report(kind="matte"))
    assert found["video"] is None
    assert "--format matte" in found["no_video"]
    assert len(found["pictures"]) == 12


def test_the_timeline_of_a_long_video_is_bounded() -> None:
    timeline, count = Timeline(), 20_000
    mask, empty = np.ones((2, 2), bool), np.zeros((2, 2), bool)
    picture = np.zeros((2, 2, 3), np.uint8)
    for index in range(count):
        masked = Frame(picture, index * 3 * 3600 / count, index)
        inside = 0.5 <= index / count < 0.75
        level = 0.0 if inside else float("-inf")
        shown = MaskedFrame(masked, mask if inside else empty, "computed", level_dbfs=level)
        timeline.add(shown.summary)
    found = timeline.to_json({"sound source": (1, 2, 3)})
    assert MAX_SPANS / 2 <= len(found["times"]) <= MAX_SPANS
    seen = [time for time, area in zip(found["times"], found["areas"], strict=True) if area]
    assert seen[0] / 3600 == pytest.approx(1.5, abs=0.01)
    assert seen[-1] / 3600 == pytest.approx(2.25, abs=0.01)
    assert np.mean(found["areas"]) == pytest.approx(0.25, abs=0.01)
    assert set(found["levels"]) == {0, -120}
    assert found["sources"][0]["areas"] == found["areas"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened_page(tmp_path_factory.mktemp("chromium")) as found:
        yield found


SETTLED = (
    "(video => video && video.readyState > 1 && !video.seeking)(document.querySelector('video'))"
)
SHOWN = """
(() => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const video = document.querySelector("video");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  context.drawImage(video, 0, 0);
  return context.getImageData(canvas.width - 8, canvas.height - 8, 1, 1).data[0];
})()
"""
"""The grey level of the frame in view, which grows by 6 from frame to frame; see `grey_step`."""


def state(page: Page) -> tuple[float, str]:
    """Return the value of the timeline in seconds, and as text."""
    found = [
        page.run(f"document.getElementById('timeline').getAttribute('aria-{name}')")
        for name in ("valuenow", "valuetext")
    ]
    return float(found[0]), found[1]


def shown_frame(page: Page) -> float:
    page.wait_for(SETTLED)
    return float(round((page.run(SHOWN) - 40) / 6))


def click_timeline(page: Page, share: float) -> None:
    page.run("document.getElementById('timeline').scrollIntoView({ block: 'center' })")
    box = page.run(
        "Object.values(document.getElementById('timeline').getBoundingClientRect().toJSON())"
    )
    page.click(box[0] + share * box[2], box[1] + box[3] / 2)


@pytest.mark.parametrize("start_s", [0.0, 5.0])
def test_clicks_and_keys_seek_the_video(
    report: Callable[..., Path], page: Page, start_s: float
) -> None:
    page.open(report("dog", "bell", start_s=start_s))
    assert shown_frame(page) == 0
    click_timeline(page, 0.515)  # at 1.545 s
    assert shown_frame(page) == 15
    time_s, text = state(page)
    assert time_s == pytest.approx(start_s + 1.545, abs=0.01)
    assert "bell" in text
    assert "dBFS" in text
    page.run("document.getElementById('timeline').focus()")
    steps = [("ArrowRight", 1.605), ("PageUp", 2.205), ("PageDown", 1.605), ("ArrowLeft", 1.545)]
    for key, expected_s in [*steps, ("Home", 0.0)]:
        page.press(key)
        assert shown_frame(page) == int(expected_s * RATE)
        assert state(page)[0] == pytest.approx(start_s + expected_s, abs=0.02)
    page.press("End")
    assert shown_frame(page) == FRAMES - 1
    described = page.call("Accessibility.getFullAXTree")["nodes"]
    sliders = [each["name"]["value"] for each in described if each["role"]["value"] == "slider"]
    assert "Timeline" in sliders
    page.run("document.getElementById('table').open = true")
    page.run("document.querySelectorAll('#rows button')[1].click()")
    assert shown_frame(page) == 10
    page.run("document.querySelectorAll('#pictures button')[3].click()")
    time_s, _ = state(page)
    assert time_s == pytest.approx(page.run("data.pictures[3].time_s"), abs=0.01)
    assert not page.errors
    assert {url.partition(":")[0] for url in page.requested} <= {"file", "blob", "data"}


def test_the_space_bar_plays_and_pauses(report: Callable[..., Path], page: Page) -> None:
    page.open(report())
    page.wait_for(SETTLED)
    click_timeline(page, 0.1)
    page.press(" ")
    page.wait_for("!video.paused && video.currentTime > 0.4")
    page.press(" ")
    page.wait_for("video.paused")
    assert not page.errors


def test_hostile_names_are_shown_as_text(report: Callable[..., Path], page: Page) -> None:
    page.open(report(HOSTILE, "bell", card={HOSTILE: HOSTILE}))
    shown = page.run("document.querySelector('.track.source').textContent")
    assert HOSTILE in shown
    assert page.run("document.title") == f"{NAME}.webm"
    assert page.run("document.querySelectorAll('b').length") == 0


def test_a_linked_video_plays_and_pictures_stand_in_for_a_missing_one(
    report: Callable[..., Path], page: Page
) -> None:
    path = report(suffix=".mp4", padding=EMBEDDED_BYTES)
    assert path.stat().st_size < EMBEDDED_BYTES / 10
    assert data_of(path)["video"] == {"type": "video/mp4", "link": "../a%20clip%20%231%3F.mp4"}
    page.open(path)
    page.wait_for(SETTLED)
    click_timeline(page, 0.515)
    page.wait_for(SETTLED)
    assert page.run("video.currentTime") == pytest.approx(1.545, abs=0.01)
    next(path.parent.parent.glob("*.mp4")).unlink()
    page.open(path)
    page.wait_for("document.querySelector('#stage img')")
    assert "is not beside this page" in page.run("document.getElementById('note').textContent")


def test_without_a_video_clicks_change_the_picture(report: Callable[..., Path], page: Page) -> None:
    page.open(report(kind="masks"))
    captions = []
    for share in (0.05, 0.5, 0.95):
        click_timeline(page, share)
        captions.append(page.run("document.querySelector('#stage figcaption').textContent"))
    assert len(set(captions)) == 3
    assert page.run("document.querySelector('#stage img').naturalWidth") > 100


@pytest.mark.parametrize(("system", "other"), [("light", "dark"), ("dark", "light")])
def test_light_and_dark_and_narrow(
    report: Callable[..., Path], page: Page, system: str, other: str
) -> None:
    page.call(
        "Emulation.setEmulatedMedia",
        features=[
            {"name": "prefers-color-scheme", "value": system},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ],
    )
    page.open(report("a" * 300, "bell"), width=390)
    paper = "getComputedStyle(document.body).backgroundColor"
    colours = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 20, 25)"}
    assert page.run(paper) == colours[system]
    page.run("document.getElementById('theme').click()")
    assert page.run(paper) == colours[other]
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.call("Emulation.setEmulatedMedia", features=[])
