"""A real S3 server on HTTP in a thread of the tests, which counts what it sends and can be told to refuse."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.core.authorization import enable_iam_authentication
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REGION = "us-east-1"
_REFUSAL = b"<Error><Code>AccessDenied</Code><Message>refused by the test</Message></Error>"


@dataclass
class Request:
    """One request: ``target`` is path and query, ``sent`` counts the bytes of the answer's body.

    ``trailer`` names the checksum that follows the content, if one does.
    """

    method: str
    target: str
    signed: bool
    trailer: str
    sent: int = 0


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *args: object) -> None:
        pass


class Buckets:
    """An S3 server as tests look at it from outside: its address and port, and the credentials that it lets in."""

    host: str
    key, secret = "tests", "secret"

    def begin_anew(self) -> None:
        """Forget what a test has asked, and told the server to do."""

    def url(self, path: str, **options: str) -> str:
        """The URL of ``bucket/prefix`` with everything that it takes to get there."""
        query = {"endpoint_override": self.host, "scheme": "http", "region": REGION, **options}
        return f"s3://{path}?{'&'.join(f'{key}={value}' for key, value in query.items())}"

    def client(self, service: str = "s3") -> Any:
        """AWS' own client of this server, which knows nothing of pyarrow."""
        return boto3.client(service, endpoint_url=f"http://{self.host}", region_name=REGION)

    def give_credentials(self, patch: pytest.MonkeyPatch) -> None:
        """Set the environment's credentials, and nothing else of whoever runs the tests."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", self.key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", self.secret)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)

    def new_bucket(self, test: str) -> str:
        """Make a bucket for a test; return its name."""
        name = f"bucket-{hashlib.sha256(test.encode()).hexdigest()[:16]}"
        self.client().create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket."""
        client = self.client()
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in self.keys(bucket)}

    def keys(self, bucket: str) -> list[str]:
        """The names of all objects of a bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


class S3Server(Buckets):
    """Moto's S3 behind an address of its own; ``requests`` are all that have come."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.begin_anew()
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"

    def begin_anew(self) -> None:
        self.requests.clear()
        #: Requests that are answered with 403.
        self.refuses: Callable[[Request], bool] = lambda request: False
        #: Called when the answer to a request is ready.
        self.answered: Callable[[Request], object] = lambda request: None

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        query = environ["QUERY_STRING"]
        target = f"{environ['PATH_INFO']}?{query}" if query else environ["PATH_INFO"]
        signed, trailer = "HTTP_AUTHORIZATION" in environ, environ.get("HTTP_X_AMZ_TRAILER", "")
        request = Request(environ["REQUEST_METHOD"], target, signed, trailer)
        self.requests.append(request)
        if self.refuses(request):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(
                "403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_REFUSAL)))]
            )
            body = [_REFUSAL]
        else:
            body = list(self._application(environ, start_response))
        request.sent = sum(map(len, body)) if request.method != "HEAD" else 0
        self.answered(request)
        return body

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def sent(self) -> int:
        """How many bytes of bodies have been sent."""
        return sum(request.sent for request in self.requests)

    @contextmanager
    def checking_credentials(self) -> Iterator[dict[str, str]]:
        """Let requests be signed correctly by somebody who may; gives such credentials, as environment variables."""
        client = self.client("iam")
        client.create_user(UserName="somebody")
        everything = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
        client.put_user_policy(UserName="somebody", PolicyName="everything", PolicyDocument=everything)
        key = client.create_access_key(UserName="somebody")["AccessKey"]
        with enable_iam_authentication():
            yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        client.delete_access_key(UserName="somebody", AccessKeyId=key["AccessKeyId"])
        client.delete_user_policy(UserName="somebody", PolicyName="everything")
        client.delete_user(UserName="somebody")
