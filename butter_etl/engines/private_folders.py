"""Folders and files that nobody but the user reads or writes: for files that are code, which reading them runs.

Names are followed over links once, and what they lead to is used from then on. Every folder on that path must be the
user's or root's, and none may be open to others, but for sticky ones, in which nobody renames what another owns. So
nobody else can put another folder in the place of one that was found good.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
import uuid
from pathlib import Path

_OTHERS = 0o077
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFREG: "file"}
_MOUNTS = Path("/proc/self/mountinfo")

#: File systems of this machine's own disks and memory. What is not listed is taken for one that other machines share.
_OWN_DISKS = (
    "apfs bcachefs btrfs exfat ext2 ext3 ext4 f2fs fuse.fuse-overlayfs fuseblk hfs jfs nilfs2 ntfs3 overlay ramfs "
    "reiserfs rootfs tmpfs vfat xfs zfs"
)


def make_private(folder: Path) -> Path:
    """Return the real path of ``folder``, made with those above it where they are missing.

    The folder itself may be no link, and must be the user's and closed to all others. Raises OSError where it cannot be
    made, and PermissionError, with the reason, where others might change what it holds.
    """
    # Not Path.resolve, which raises RuntimeError where links lead round and round.
    real = Path(os.path.realpath(folder.parent)) / folder.name
    for part in reversed(real.parents):
        _require_guarded(part, _made(part))
    _require_own(real, _made(real), stat.S_IFDIR)
    return real


def _made(folder: Path) -> os.stat_result:
    try:
        return folder.lstat()
    except FileNotFoundError:
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder.lstat()


def _require_guarded(folder: Path, facts: os.stat_result) -> None:
    """Raise PermissionError where others than the user and root may rename what lies in ``folder``."""
    # Where root is not mapped, as in a container, the owner of / stands for it.
    if facts.st_uid not in {os.getuid(), 0, Path("/").stat().st_uid}:
        raise PermissionError(f"{folder}, in which it lies, belongs to user {facts.st_uid}")
    shared = facts.st_mode & stat.S_IWOTH or (facts.st_mode & stat.S_IWGRP and not _is_own_group(facts.st_gid))
    if shared and not facts.st_mode & stat.S_ISVTX:
        raise PermissionError(f"others may write into {folder}, in which it lies (mode {_mode(facts)})")


def _require_own(path: Path, facts: os.stat_result, kind: int) -> None:
    """Raise PermissionError unless ``path`` is of a ``kind``, belongs to the user and is closed to all others."""
    if stat.S_IFMT(facts.st_mode) != kind:
        raise PermissionError(f"{path} is a link, or not the {_KINDS[kind]} that it should be")
    if facts.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to user {facts.st_uid}")
    if facts.st_mode & _OTHERS:
        raise PermissionError(f"{path} is open to others (mode {_mode(facts)}; chmod go= closes it)")


def _mode(facts: os.stat_result) -> str:
    return f"{stat.S_IMODE(facts.st_mode):o}"


def _is_own_group(group: int) -> bool:
    """Tell whether a group is root's, or has no member but the user, as many systems give each user one."""
    if group == 0:
        return True
    try:
        user, members = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and members.gr_name == user.pw_name and set(members.gr_mem) <= {user.pw_name}


def read_private(file: Path) -> bytes:
    """Return what ``file`` holds.

    Raises OSError where it cannot be read, FileNotFoundError where it is not there, and PermissionError where it is a
    link, another user's, or open to others.
    """
    # What is checked is what is read. A pipe would be waited for.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        _require_own(file, os.fstat(stream.fileno()), stat.S_IFREG)
        return stream.read()


def write_private(file: Path, content: bytes) -> None:
    """Write ``file`` aside, for the user alone, and give it its name once it is whole on the disk.

    Raises OSError, and then leaves nothing.
    """
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
    except BaseException:  # Ctrl-C too: nothing is left, and all is raised again
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def is_on_this_machine(path: Path) -> bool:
    """Tell whether a real ``path`` lies on a disk of this machine, by the kind of its file system.

    True where the system does not say what is mounted.
    """
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return True
    return _kind_at(path, mounts) in _OWN_DISKS.split()


def _kind_at(path: Path, mounts: str) -> str:
    """Return the kind of the file system that ``path`` is on, as /proc/self/mountinfo has them: see proc(5)."""
    kind, depth = "", 0
    for line in mounts.splitlines():
        place, _, source = line.partition(" - ")
        # Blanks in a mount point are written as octal numbers.
        point = Path(re.sub(r"\\(\d{3})", lambda digits: chr(int(digits[1], 8)), place.split()[4]))
        # Of mounts at one point the last is seen.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = source.split()[0], len(point.parts)
    return kind
