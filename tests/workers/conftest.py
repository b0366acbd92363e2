"""Services for tests of this floor: an S3 over HTTP, a Ray of our own."""

import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from moto.server import ThreadedMotoServer

from workers.store import Access

if TYPE_CHECKING:
    from workers.pool import PoolOptions


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


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """Return the address of a Ray that this process has joined: one that it starts, or `WEIR_TEST_RAY`."""
    import ray

    from workers.pool import PoolOptions, connect

    address = os.environ.get("WEIR_TEST_RAY")  # noqa: TID251 -- as with the Kafka of the tests
    for left in (2, 1, 0):
        try:
            connect(PoolOptions(address=address, object_store_bytes=200_000_000))
            break
        except Exception:
            # Ray waits half a minute for its own processes, which is not enough on a busy machine.
            ray.shutdown()
            if not left:
                raise
    yield str(ray.get_runtime_context().gcs_address)
    ray.shutdown()


@pytest.fixture
def pool_options(local_ray: str) -> Iterator["PoolOptions"]:
    """Return options of a pool of this test's own, impatient ones; its workers end with the test."""
    from workers.crew import Patience
    from workers.pool import PoolOptions, stop

    options = PoolOptions(
        address=local_ray,
        namespace=f"test-{uuid.uuid4().hex[:8]}",
        patience=Patience(silence_s=3.0, pulse_s=0.3, call_s=20.0),
        threads=1,
    )
    yield options
    stop(options)
