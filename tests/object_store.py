"""A server on this computer that speaks the protocol of S3."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


BINARY = {"Content-Type": "application/octet-stream"}


class ObjectStore:
    """A bucket, as its owner sees it."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.endpoint = endpoint
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106 - of a server that takes any
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket="bucket")

    def put(self, key: str, content: bytes | Path) -> str:
        """Write an object and return its URL."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket="bucket", Key=key, Body=body)
        return f"s3://bucket/{key}"

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self.client.get_object(Bucket="bucket", Key=key)["Body"].read()
        return content

    @property
    def keys(self) -> list[str]:
        """The keys of all objects."""
        found = self.client.list_objects_v2(Bucket="bucket").get("Contents", ())
        return [each["Key"] for each in found]

    @property
    def uploads(self) -> list[str]:
        """The keys of the uploads in parts that were begun and neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket="bucket").get("Uploads", ())
        return [each["Key"] for each in found]

    def check_keys(self, *, after: int | None) -> None:
        """Let the server check access keys after a number of requests; None for never."""
        count = "inf" if after is None else str(after)
        place = f"{self.endpoint}/moto-api/reset-auth"
        request = Request(place, count.encode(), BINARY, method="POST")  # noqa: S310
        urlopen(request).close()  # noqa: S310 - our own server

    def clear(self) -> None:
        """Empty the bucket."""
        for key in self.keys:
            self.client.delete_object(Bucket="bucket", Key=key)


@contextmanager
def serve_objects() -> Iterator[ObjectStore]:
    """Run the server while the block runs, with an empty bucket named `bucket`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ObjectStore(f"http://{host}:{port}")
    finally:
        server.stop()


class Proxy:
    """A connection to a server that counts bytes, and that breaks or stalls."""

    def __init__(self, endpoint: str) -> None:
        server = urlsplit(endpoint)
        self.target = (server.hostname, server.port)
        self.received = 0
        """Bytes that the server sent."""
        self.most_down: int | None = None
        """Bytes from the server after which each connection breaks; None for no limit."""
        self.most_up: int | None = None
        """Bytes to the server after which each connection breaks; None for no limit."""
        self.stalls = False
        """Whether a connection hangs where it would break."""
        self.cuts = 0
        """How often a connection broke or hung."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else one more is accepted
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.target)
                for source, sink, down in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass, args=(source, sink, down), daemon=True
                    ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                most = self.most_down if down else self.most_up
                if most is not None and passed + len(data) > most:
                    self.cuts += 1
                    sink.sendall(data[: most - passed])
                    if self.stalls:
                        threading.Event().wait()
                    break
                sink.sendall(data)
                passed += len(data)
                if down:
                    self.received += len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
