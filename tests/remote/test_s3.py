"""A real S3 server over TCP, with a proxy before it that lets things go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from caches import assert_holds, assert_same
from faulty_proxy import FaultyProxy
from moto.server import ThreadedMotoServer
from remote_caches import SEQUENCES, Remote

import sparselogits as sl
from sparselogits.remote.fetch_shard import MAX_FETCHES
from sparselogits.remote.remote_files import MAX_ATTEMPTS

SECRETS = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[tuple[str, int]]:
    """Moto's server, with the cache in `bucket`."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **SECRETS)
    client.create_bucket(Bucket="bucket")
    for path in made.iterdir():
        client.upload_file(str(path), "bucket", f"caches/c/{path.name}")
    client.close()
    yield host, port
    moto.stop()


@pytest.fixture
def proxy(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between s3fs and the server. s3fs asks once: what it would repeat is ours to repeat."""
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with FaultyProxy(*server) as proxy:
        yield proxy


@pytest.fixture
def bucket(made: Path, proxy: FaultyProxy, tmp_path: Path) -> Remote:
    options: dict[str, Any] = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": proxy.url, "region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "read_timeout": 1},
    }
    return Remote("s3://bucket/caches/c", made, tmp_path / "l", {"storage_options": options})


def test_a_cache_in_a_bucket_is_read_like_any_other(bucket: Remote) -> None:
    cache = bucket.open(local_cache_bytes=bucket.room_for(3))
    assert_holds(cache, SEQUENCES)
    assert cache.verify().ok
    assert bucket.local_bytes <= bucket.room_for(3)


@pytest.mark.parametrize("fault", ["drop", "truncate", "unavailable", "wrong", "stall"])
def test_one_fault_is_got_over(bucket: Remote, proxy: FaultyProxy, fault: str) -> None:
    proxy.faults += [fault]
    assert_same(bucket.open()[3], SEQUENCES[3])
    assert len(proxy.requests) == 2


def test_many_faults_are_got_over(bucket: Remote, proxy: FaultyProxy) -> None:
    cache = bucket.open(num_fetchers=3)
    proxy.faults += ["drop", "unavailable", "truncate", "drop", "wrong", "send", "unavailable"]
    cache.prefetch(range(12))
    assert_holds(cache, SEQUENCES)
    assert proxy.faults == []


@pytest.mark.parametrize(
    "fault, cause",
    [("drop", ""), ("truncate", ""), ("unavailable", "reduce your request rate")],
)
def test_a_fault_that_stays_is_an_error_with_url_attempts_and_cause(
    bucket: Remote, proxy: FaultyProxy, fault: str, cause: str
) -> None:
    proxy.faults += [fault] * 100
    with pytest.raises(sl.CacheIOError) as caught:
        bucket.open().read(3)
    said = str(caught.value)
    assert "s3://bucket/caches/c/shard-000003.slc" in said
    assert f"cannot fetch it ({MAX_ATTEMPTS} attempts): " in said
    assert cause in said
    assert len(proxy.requests) >= MAX_ATTEMPTS  # the client may ask again on a new connection
    assert bucket.local_bytes == 0


def test_wrong_bytes_that_stay_are_corruption(bucket: Remote, proxy: FaultyProxy) -> None:
    proxy.faults += ["wrong"] * 100
    with pytest.raises(
        sl.CorruptionError, match=r"s3://bucket/caches/c/shard-000003\.slc"
    ) as caught:
        bucket.open().read(3)
    assert caught.value.field == "sha256"
    assert len(proxy.requests) == MAX_FETCHES
    assert bucket.local_bytes == 0


def test_a_bucket_or_a_key_that_is_not_there_is_named(bucket: Remote, proxy: FaultyProxy) -> None:
    for url in ("s3://nobucket/c", "s3://bucket/caches/none"):
        with pytest.raises(sl.CacheIOError, match=r"no manifest\.json") as caught:
            sl.open(url, local_cache=bucket.root, **bucket.options)
        assert url in str(caught.value)
