"""A local Hugging Face hub with the few endpoints that av2tsam uses; it fails on request."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LISTING = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?$")
CONTENT = re.compile(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)$")


@dataclass
class Hub:
    """What the hub publishes, how it fails, and the requests that it received."""

    url: str = ""
    """Address of the server."""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Content of files by path, for each repository."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Wrong sizes in the listing, by path."""
    digests: dict[str, str] = field(default_factory=dict)
    """Wrong sha256 checksums in the listing, by path."""
    cuts: list[int] = field(default_factory=list)
    """Number of bytes after which each of the next downloads is cut off; -1 answers with 503."""
    status: dict[str, int] = field(default_factory=dict)
    """HTTP status of errors, by repository or path."""
    hold: threading.Event | None = None
    """If set, the last byte of each file is held back until the event."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""

    def files_requested(self) -> list[str]:
        """Return the paths of the requested files."""
        return [path for path, _ in self.requests if "/resolve/" in path]

    def ranges(self) -> list[str | None]:
        """Return the Range header of each request for a file."""
        return [headers.get("range") for path, headers in self.requests if "/resolve/" in path]


class Handler(BaseHTTPRequestHandler):
    """Answers requests as the hub does."""

    hub: ClassVar[Hub]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(
            (path, {key.lower(): value for key, value in self.headers.items()})
        )
        listing, content = LISTING.match(path), CONTENT.match(path)
        if listing and listing[1] in self.hub.repositories and listing[1] not in self.hub.status:
            self.answer(json.dumps(list_repository(self.hub, listing[1])).encode())
        elif content and content[3] in self.hub.repositories.get(content[1], {}):
            self.send_content(content[3], self.hub.repositories[content[1]][content[3]])
        else:
            self.refuse(self.hub.status.get(listing[1] if listing else "", 404))

    def send_content(self, name: str, data: bytes) -> None:
        if name in self.hub.status:
            self.refuse(self.hub.status[name])
            return
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        if cut == -1:
            self.refuse(503)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.hub.hold is not None:
            self.wfile.write(data[start:-1])
            self.hub.hold.wait(timeout=30)
            data, start = data[-1:], 0
        self.wfile.write(data[start:] if cut is None else data[start : start + cut])

    def refuse(self, code: int) -> None:
        self.send_response(code)
        if code == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        if code == 403:
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def serve(hub: Hub) -> ThreadingHTTPServer:
    """Start a server on a free port, in background threads."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Ours", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    return server


def list_repository(hub: Hub, name: str) -> dict[str, Any]:
    """Return the hub's listing of a repository, with sizes and checksums."""
    siblings = []
    for path, data in hub.repositories[name].items():
        size = hub.sizes.get(path, len(data))
        digest = hub.digests.get(path, hashlib.sha256(data).hexdigest())
        lfs = {"sha256": digest, "size": size, "pointerSize": 134}
        siblings.append({"rfilename": path, "size": size, "blobId": "0" * 40, "lfs": lfs})
    return {"id": name, "sha": COMMIT, "siblings": siblings}
