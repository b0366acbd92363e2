"""An S3 over HTTP, for tests of everything that fetches media."""

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from workers.store import Access


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Return the address of an S3 that speaks HTTP."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_access(s3_endpoint: str) -> Access:
    """Return the access to an S3 with an empty bucket `uploads`."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="uploads")
    return Access(endpoint=s3_endpoint, access_key="key", secret_key="secret")
