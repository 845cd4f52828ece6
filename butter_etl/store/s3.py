"""Object stores that speak S3, by pyarrow's own file system: addresses, uploads, deletions, errors in one line.

Three habits of that file system have no place in a store and are kept out here. A stream that is closed, or merely
dropped, after an error makes an object of what it has got so far: see `Upload`. Deleting a file leaves an empty
object in place of its folder, which other readers take for a file: see `S3Prefix.delete`. Uploads carry checksums in a
way that AWS has and others may not: see `_checksums_as_required`.
"""

from __future__ import annotations

import configparser
import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pyarrow.fs

from butter_etl.errors import StoreError, one_line

OPTIONS = ("endpoint_override", "scheme", "region", "anonymous")
_TRUE = frozenset({"1", "true", "yes"})
#: Time limits and tries, so that a silent or absent server is an error within a minute.
_CONNECT_SECONDS, _REQUEST_SECONDS, _ATTEMPTS = 5, 20, 3
#: One that has answered this process will come back: pauses double up to 20 seconds, so this waits most of a minute for
#: a server that is gone, and some minutes for one that is silent.
_ATTEMPTS_FOR_KNOWN = 8
_KNOWN: set[Service] = set()
_SERVICE_ERROR = re.compile(r"AWS Error ([A-Z_]+)")
_NETWORK_ERROR = re.compile(r"curlCode: \d+, ([^;]+)")
_REFUSALS = frozenset(
    {
        "ACCESS_DENIED",
        "EXPIRED_TOKEN",
        "INCOMPLETE_SIGNATURE",
        "INVALID_ACCESS_KEY_ID",
        "INVALID_CLIENT_TOKEN_ID",
        "INVALID_SIGNATURE",
        "MISSING_AUTHENTICATION_TOKEN",
        "SIGNATURE_DOES_NOT_MATCH",
        "UNRECOGNIZED_CLIENT",
    }
)
#: AWS' library reads this when a client is made. By its default, uploads carry a checksum in a trailer.
_CHECKSUMS, _REQUIRED = "AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"
#: The same in the files of the AWS command line.
_CHECKSUMS_IN_FILES = "request_checksum_calculation"
#: Hosts of AWS itself, of its partitions too.
_AWS_HOST = re.compile(r"\.amazonaws\.com(\.cn)?(:\d+)?(/|$)")
_ENVIRONMENT = threading.Lock()
_NO_CREDENTIALS = "no credentials in a URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
#: What servers cannot do or want otherwise, by what they answer, and what to do about it.
_ANSWERS = (
    (
        re.compile(r"aws-chunked|STREAMING-UNSIGNED-PAYLOAD-TRAILER|x-amz-(sdk-checksum|trailer)", re.IGNORECASE),
        f"takes no checksums in trailers; unset {_CHECKSUMS} (in the files of AWS' command line: "
        f"{_CHECKSUMS_IN_FILES}), or set it to {_REQUIRED}",
    ),
    (re.compile(r"region '[^']*' is wrong; expecting '([^']+)'"), r"is in region \1; add region=\1 to the URL"),
)


@dataclass(frozen=True)
class Service:
    """An S3 server, and how to connect to it. Without an ``endpoint`` it is AWS; credentials are in no address."""

    endpoint: str
    scheme: str
    region: str
    anonymous: bool

    @classmethod
    def of(cls, options: Mapping[str, str], bucket: str) -> Service:
        """Return the service that the options of a URL describe; where they are silent, the environment does."""
        environment = os.environ.get
        endpoint = (
            options.get("endpoint_override")
            or environment("AWS_ENDPOINT_URL_S3")
            or environment("AWS_ENDPOINT_URL")
            or ""
        )
        if "@" in endpoint:
            raise StoreError(f"s3://{bucket}: {_NO_CREDENTIALS} (the endpoint has some)")
        scheme, separator, host = endpoint.rstrip("/").rpartition("://")
        region = options.get("region") or environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
        unsigned = (
            options.get("anonymous") or environment("AWS_NO_SIGN_REQUEST") or environment("AWS_SKIP_SIGNATURE") or ""
        )
        return cls(
            endpoint=host,
            scheme=options.get("scheme") or (scheme if separator else "https"),
            region=region or ("us-east-1" if host else _region_of(bucket)),
            anonymous=unsigned.lower() in _TRUE,
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.endpoint or self._aws_host}"

    @property
    def _aws_host(self) -> str:
        return f"s3.{self.region}.amazonaws.com{'.cn' if self.region.startswith('cn-') else ''}"

    @property
    def options(self) -> dict[str, str]:
        """Return the URL options that say all of this, whatever the environment of the process that reads them."""
        named = {"endpoint_override": self.endpoint, "scheme": self.scheme if self.endpoint else ""}
        named |= {"region": self.region, "anonymous": "true" if self.anonymous else ""}
        return {key: value for key, value in named.items() if value}

    @property
    def is_aws(self) -> bool:
        """Tell whether this is AWS itself, by whatever address."""
        return not self.endpoint or _AWS_HOST.search(self.endpoint) is not None

    @property
    def is_known(self) -> bool:
        """Tell whether it has answered this process."""
        return self in _KNOWN

    def has_answered(self) -> None:
        """Remember that it has answered: it is waited for longer from now on."""
        _KNOWN.add(self)

    def connect(self, below: str = "") -> pyarrow.fs.S3FileSystem:
        """Return a file system of the server's buckets, or of the folders ``below`` a path, as if they were buckets."""
        endpoint = self.endpoint or (self._aws_host if below else "")
        attempts = _ATTEMPTS_FOR_KNOWN if self.is_known else _ATTEMPTS
        with nullcontext() if self.is_aws else _checksums_as_required():
            return pyarrow.fs.S3FileSystem(
                endpoint_override=f"{endpoint}/{quote(below, safe='/=')}".rstrip("/") or None,
                scheme=self.scheme,
                region=self.region,
                anonymous=self.anonymous,
                # Small objects are put by one request. Parts are sent one after the other, which bounds memory.
                allow_delayed_open=True,
                background_writes=False,
                connect_timeout=_CONNECT_SECONDS,
                request_timeout=_REQUEST_SECONDS,
                retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
            )


@contextmanager
def _checksums_as_required() -> Iterator[None]:
    """Let a client that is made in this block send checksums only where S3 demands them, unless the user chose.

    AWS' library adds them to every upload, in a trailer, which servers other than AWS may refuse: they came late to S3.
    pyarrow has no argument for it; the library asks the environment, at the moment that a client is made.
    """
    with _ENVIRONMENT:
        if _CHECKSUMS in os.environ or _is_set_in_files():
            yield
            return
        os.environ[_CHECKSUMS] = _REQUIRED
        try:
            yield
        finally:
            del os.environ[_CHECKSUMS]


def _is_set_in_files() -> bool:
    """Tell whether the user's profile in the files of AWS' command line says how uploads are checked."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser().read_text())
    except (OSError, RuntimeError, UnicodeDecodeError, configparser.Error):  # what cannot be read sets nothing
        return False
    sections = ("default",) if name == "default" else (f"profile {name}", name)
    return any(parser.has_option(section, _CHECKSUMS_IN_FILES) for section in sections)


@cache
def _region_of(bucket: str) -> str:
    """Ask AWS for the region of one of its buckets; raise StoreError if it does not answer."""
    try:
        region: str = pyarrow.fs.resolve_s3_region(bucket)
    except OSError as error:
        raise StoreError(
            f"s3://{bucket}: its region cannot be found ({_detail(error)}); add ?region=… to the URL or set AWS_REGION"
        ) from error
    return region


class S3Prefix:
    """``s3://bucket/prefix?endpoint_override=…&scheme=…&region=…&anonymous=true``, every option optional.

    Options that the URL leaves out come from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or
    AWS_DEFAULT_REGION, and AWS_NO_SIGN_REQUEST or AWS_SKIP_SIGNATURE. Credentials come from the environment or from
    AWS' own files; in a URL they would end up in logs, so they are refused. Raises StoreError.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if "@" in parts.netloc or ":" in parts.netloc:  # a secret can have a slash, so that it ends early
            place = url.partition("?")[0].rpartition("@")[2] if "@" in url else "…"
            raise StoreError(f"s3://{place}: {_NO_CREDENTIALS}")
        self.bucket, key = parts.netloc, unquote(parts.path).strip("/")
        #: The path that the file system knows.
        self.root = f"{self.bucket}/{key}" if key else self.bucket
        if not self.bucket:
            raise StoreError(f"{url}: not a usable location (no bucket); write s3://bucket/prefix")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in options:
            if name not in OPTIONS:
                raise StoreError(f"{self}: unknown option {name!r} in the URL; known: {', '.join(OPTIONS)}")
        self.service = Service.of(options, self.bucket)
        self._options = parts.query
        self._connection = self.service.is_known, self.service.connect()

    @property
    def filesystem(self) -> pyarrow.fs.S3FileSystem:
        """Return the file system of the server's buckets, with patience for one that has answered."""
        if self._connection[0] != self.service.is_known:
            self._connection = self.service.is_known, self.service.connect()
        return self._connection[1]

    def address(self, name: str = "") -> str:
        """Return the address of ``name``, with the options that this one was given."""
        path = quote(f"{self.root}/{name}" if name else self.root, safe="/=")
        return f"s3://{path}?{self._options}" if self._options else f"s3://{path}"

    def __str__(self) -> str:
        return f"s3://{self.root}"

    @property
    def url(self) -> str:
        """Return the whole address, for another process."""
        return f"s3://{quote(self.root, safe='/=')}?{urlencode(self.service.options)}"

    def delete(self, path: str) -> None:
        """Delete an object and leave nothing in its place; raises FileNotFoundError if it is not there.

        pyarrow follows every deletion by an empty object named like the folder above. It does not where that folder
        is a bucket; so the file system used here takes the folder for one, below an endpoint that ends where it begins.
        """
        folder, _, name = path.rpartition("/")
        above, _, last = folder.rpartition("/")
        filesystem = self.service.connect(above) if above else self.filesystem
        filesystem.delete_file(f"{last}/{name}")

    def require_bucket(self) -> None:
        """Raise StoreError if the bucket is not there: its objects would look as if they alone were missing."""
        if self.filesystem.get_file_info(self.bucket).type == pyarrow.fs.FileType.NotFound:
            raise StoreError(f"{self}: there is no bucket {self.bucket!r} at {self.service}; create it first")

    def explain(self, error: OSError) -> str:
        """Say what an error of the server or of the way to it means, and what to do about it."""
        code = service_error(error)
        for answer, meaning in _ANSWERS:
            if found := answer.search(str(error)):
                return f"{self.service} {found.expand(meaning)}"
        if code == "NO_SUCH_BUCKET":
            return f"there is no bucket {self.bucket!r} at {self.service}; create it first"
        if code in _REFUSALS:
            return (
                f"{self.service} refuses it ({code}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials "
                "that may, or read a public bucket with ?anonymous=true"
            )
        if code == "NETWORK_CONNECTION":
            return f"{self.service} cannot be reached ({_detail(error)})"
        return one_line(error)


def service_error(error: Exception) -> str | None:
    """Return the name of an error of the server, or of the way to it; None for errors of another kind."""
    match = _SERVICE_ERROR.search(str(error))
    return match.group(1) if match else None


def _detail(error: OSError) -> str:
    """Return the gist of an error of the network, such as "Could not connect to server"."""
    match = _NETWORK_ERROR.search(str(error))
    return match.group(1) if match else one_line(error)


class Upload:
    """``with Upload(open, errors) as upload: upload.write(data)``: an object that is there whole, or never.

    It appears when the block is left, replacing the one that was there. If an exception leaves the block, or the
    process ends, nothing has changed but that the server keeps parts which no listing shows. ``open`` makes the
    stream; what goes wrong with it is told by ``errors``.
    """

    def __init__(self, open_stream: Callable[[], Any], errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._open, self._errors = open_stream, errors
        self._stream: Any = None

    def __enter__(self) -> Upload:
        with self._errors():
            self._stream = self._open()
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take more of the object's bytes; return how many."""
        with self._errors():
            self._stream.write(data)
        return len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            _never_close(self._stream)
            return
        try:
            with self._errors():
                self._stream.close()
        except BaseException:  # Ctrl-C too: what was sent must not become an object; all is raised again
            _never_close(self._stream)
            raise


def _never_close(stream: Any) -> None:
    """Keep a stream for as long as the process lives.

    pyarrow cannot abort an upload. Closing the stream would complete the object with what has been sent, and so
    would its destructor; so it gets a reference that nobody gives back.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
