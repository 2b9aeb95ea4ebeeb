"""A command that is interrupted or killed while it copies an input, with real signals."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.files import remove_dead_parts

if TYPE_CHECKING:
    from tests.object_store import ObjectStore, Proxy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="knows dead processes on Linux")
LONGEST_S = 120.0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_copies_are_removed(
    name: str,
    store: "ObjectStore",
    proxy: "Proxy",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, staging = store.put("a.mp4", bytes(1 << 18)), tmp_path / "staging"
    words = ["segment", url, "-o", str(tmp_path / "out.mp4"), "--staging", str(staging)]
    proxy.most_down, proxy.stalls = 1 << 17, True
    command = subprocess.Popen(
        [sys.executable, "-m", "av2tsam_cli", *words], stderr=subprocess.PIPE, text=True
    )
    began_s = time.monotonic()
    while not list(staging.rglob("a.mp4")):
        assert time.monotonic() - began_s < LONGEST_S
        time.sleep(0.02)
    command.send_signal(getattr(signal, name))
    _, error = command.communicate(timeout=LONGEST_S)
    if name == "SIGKILL":
        assert command.returncode == -signal.SIGKILL
        assert len(list(staging.iterdir())) == 1
        proxy.most_down = None
        remove_dead_parts.cache_clear()  # as in a new process
        assert main(words) == 3
        assert f"{url}: not a readable media file" in capsys.readouterr().err
    else:
        assert command.returncode == 130
        assert error == "av2tsam: error: interrupted; unfinished outputs were removed\n"
    assert list(staging.iterdir()) == []


UPLOAD = """
import signal, sys
from pathlib import Path
from av2tsam_cli.stores import upload_folder

signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    upload_folder(Path(sys.argv[1]), "s3://bucket/out", last="last")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_upload_that_stalls_can_be_interrupted(
    store: "ObjectStore", proxy: "Proxy", tmp_path: Path
) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(1 << 17))
    proxy.most_up, proxy.stalls = 1 << 16, True
    with subprocess.Popen(
        [sys.executable, "-c", UPLOAD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as upload:
        began_s = time.monotonic()
        while not proxy.cuts:
            assert time.monotonic() - began_s < LONGEST_S
            time.sleep(0.02)
        upload.send_signal(signal.SIGTERM)
        try:
            printed, _ = upload.communicate(timeout=LONGEST_S)
        finally:
            upload.kill()
    assert printed == "interrupted\n"
    assert "last" not in store.keys
