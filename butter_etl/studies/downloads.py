"""Files that are downloaded: whole or not at all, whoever else downloads them meanwhile."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: A callback that is given the bytes so far and, where the server tells it, the bytes in all.
OnDownload = Callable[[int, int | None], None]
_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 18


class UnreachableError(Exception):
    """A file cannot be had from where it should be; the message is the reason, in one line."""


def download(url: str, path: Path, check: Callable[[Path], None], on_progress: OnDownload | None = None) -> None:
    """Download a file to a name that no other process uses, have it checked, then rename it to ``path``.

    ``check`` raises what it will for a file that is not the right one. Raises UnreachableError where it cannot be had,
    OSError where it cannot be written. Folders that were made for nothing are taken away.
    """
    import requests

    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    made: list[Path] = []
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            _fetch(url, file, on_progress)
        check(temporary)
        temporary.replace(path)
    except requests.RequestException as error:
        raise UnreachableError(" ".join(str(error).split())) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            for folder in made:  # those that are empty still
                folder.rmdir()


def _fetch(url: str, file: BinaryIO, on_progress: OnDownload | None) -> None:
    import requests

    # The file is compressed as it is; a server that compressed it once more would hide its length.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS, headers=headers) as response:
        response.raise_for_status()
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        done = 0
        for chunk in response.iter_content(_CHUNK_BYTES):
            done += file.write(chunk)
            if on_progress:
                on_progress(done, total)
