"""A server on this computer that speaks the protocol of S3."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


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
