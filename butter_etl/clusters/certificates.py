"""The certificate of one cluster: made for it, readable by one user only, gone with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from butter_etl.errors import ClusterFileError, writing

if TYPE_CHECKING:
    from distributed import Security

_CERTIFICATE, _KEY = "certificate.pem", "key.pem"


@contextlib.contextmanager
def certificates(home: Path) -> Iterator[Security]:
    """Make a certificate for one cluster, in files that only this user can read; it is gone with the block.

    Scheduler, client and workers show the same certificate and trust no other. Raises ClusterFileError if ``home``
    is not this user's alone, PlaceError or FullDiskError if it cannot be written.
    """
    make_private(home)
    _clear_leftovers(home)
    prefix = f"{socket.gethostname()}-{os.getpid()}-"
    # Network file systems keep files that a worker has open under another name for a while.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=home, ignore_cleanup_errors=True) as folder:
        from distributed import Security

        made = Security.temporary()
        security = security_files(Path(folder))
        with writing(f"shared_tmp: {home}"):
            _write_private(Path(folder, _CERTIFICATE), made.tls_ca_file)
            _write_private(Path(folder, _KEY), made.tls_worker_key)
        yield security


def security_files(folder: Path) -> Security:
    """Return TLS for all roles with the certificate and key that lie, or will lie, in a folder."""
    from distributed import Security

    certificate, key = str(folder / _CERTIFICATE), str(folder / _KEY)
    files = {"tls_ca_file": certificate}
    for role in ("client", "scheduler", "worker"):
        files |= {f"tls_{role}_cert": certificate, f"tls_{role}_key": key}
    return Security(require_encryption=True, **files)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="ascii")


def make_private(home: Path) -> None:
    """Make a folder that only this user can enter, unless it is there.

    Raises ClusterFileError for one that is not this user's alone, PlaceError or FullDiskError where files cannot be
    made in it.
    """
    with writing(f"shared_tmp: {home}"):
        try_folder(home, 0o700)
        found = home.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ClusterFileError(f"shared_tmp: {home} must be yours alone: chmod 700 {home}")


def try_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder unless it is there; raise OSError, with nothing made, where files cannot be made in it."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\n")
    except OSError:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


def _clear_leftovers(home: Path) -> None:
    """Remove the certificates of clusters of this machine that were killed."""
    for folder in home.iterdir():
        host, _, rest = folder.name.rpartition("-")[0].rpartition("-")
        if host == socket.gethostname() and rest.isdigit() and not _runs(int(rest)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
