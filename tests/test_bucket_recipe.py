"""The recipe for a bucket, as docs/recipes.md prints it, against a real S3 server that counts what it sends."""

import re
from pathlib import Path

import dask
import pytest

from tests.exports import export, make_store
from tests.s3_server import S3Server

RECIPES = Path(__file__).parents[1] / "docs/recipes.md"


@pytest.fixture
def server(monkeypatch):
    for name, value in (("ACCESS_KEY_ID", "tests"), ("SECRET_ACCESS_KEY", "secret"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = S3Server()
    server.client().create_bucket(Bucket="my-bucket")
    yield server
    server.close()


def test_a_slice_from_a_bucket_reads_what_it_needs(server, tmp_path):
    store = make_store(tmp_path / "store")
    dest = server.url("my-bucket/dest")
    export(store, dest, "primary", "optimizer")
    section = RECIPES.read_text().partition("## A slice from a bucket\n")[2]
    code = re.search(r"^```python no-run\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)[1]
    assert '"s3://my-bucket/dest/primary_sweep_summary"' in code
    folder = server.url("my-bucket/dest/primary_sweep_summary")
    code = code.replace("s3://my-bucket/dest/primary_sweep_summary", folder).replace("dataset=nursery", "dataset=mnist")
    server.requests.clear()
    scope = {}
    with dask.config.set(scheduler="synchronous"):
        exec(code, scope)  # noqa: S102 (our own document)
    frame = scope["slice_"]
    assert list(frame.columns) == ["size", "test_loss_median"]
    assert sorted(frame["size"]) == [4096, 8192]
    asked = {request.target.partition("?")[0] for request in server.requests if request.method == "GET"}
    read = [target for target in asked if target.endswith(".parquet")]
    assert len(read) == 1
    assert "primary_sweep_summary" in read[0]
    server.requests.clear()
    with dask.config.set(scheduler="synchronous"):
        exec(code.replace("depth=3", "depth=4"), scope)  # noqa: S102
    assert len(scope["slice_"]) == 0
    assert not [request for request in server.requests if request.target.partition("?")[0].endswith(".parquet")]
