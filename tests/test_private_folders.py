"""Folders and files that only the user writes to: with real modes, links and owners."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from butter_etl.engines import private_folders
from butter_etl.engines.private_folders import is_on_this_machine, make_private, read_private, write_private

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_closed(tmp_path):
    before = os.umask(0)
    try:
        folder = make_private(tmp_path / "one" / "two" / "three")
    finally:
        os.umask(before)
    assert folder == tmp_path / "one" / "two" / "three"
    assert {mode(path) for path in (folder, folder.parent, folder.parent.parent)} == {0o700}
    assert make_private(folder) == folder


@pytest.mark.parametrize("open_to", [0o755, 0o750, 0o770, 0o777, 0o1777])
def test_an_open_folder_is_refused(tmp_path, open_to):
    make_private(tmp_path / "one").chmod(open_to)
    with pytest.raises(PermissionError, match=f"{tmp_path}/one is open to others .mode {open_to:o}; chmod go= closes"):
        make_private(tmp_path / "one")


@pytest.mark.parametrize(("above", "trusted"), [(0o777, False), (0o1777, True), (0o755, True), (0o757, False)])
def test_nobody_else_may_rename_what_is_above(tmp_path, above, trusted):
    (tmp_path / "above").mkdir()
    (tmp_path / "above").chmod(above)
    if trusted:
        assert make_private(tmp_path / "above" / "one").is_dir()
        return
    with pytest.raises(PermissionError, match=r"others may write into .*/above, in which it lies"):
        make_private(tmp_path / "above" / "one")
    assert not (tmp_path / "above" / "one").exists()


@as_root
def test_a_group_of_ones_own_is_nobody_else(tmp_path):
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o775)
    assert make_private(above / "one").is_dir()
    for others in (NOBODY, 54321):  # one that has a name, one that has none
        os.chown(above, -1, others)
        with pytest.raises(PermissionError, match="others may write into"):
            make_private(above / "one")


@as_root
def test_what_is_anothers_is_refused(tmp_path):
    folder = make_private(tmp_path / "above" / "one")
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=f"above/one belongs to user {NOBODY}"):
        make_private(folder)
    os.chown(folder, 0, 0)
    os.chown(folder.parent, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=f"above, in which it lies, belongs to user {NOBODY}"):
        make_private(folder)


def test_links(tmp_path):
    """What a link above leads to is judged; the folder itself may be none."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("elsewhere")
    assert make_private(tmp_path / "link" / "one") == tmp_path / "elsewhere" / "one"
    with pytest.raises(PermissionError, match="link is a link, or not the folder"):
        make_private(tmp_path / "link")
    (tmp_path / "elsewhere").chmod(0o777)
    with pytest.raises(PermissionError, match=r"others may write into .*/elsewhere,"):
        make_private(tmp_path / "link" / "one")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="round"):
        make_private(tmp_path / "round" / "one")


def test_files_are_closed_and_whole(tmp_path):
    file = tmp_path / "file"
    write_private(file, b"one")
    write_private(file, b"other")
    assert read_private(file) == b"other"
    assert mode(file) == 0o600
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_private(tmp_path / "folder", b"one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_files_that_are_not_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "absent")
    file = tmp_path / "file"
    write_private(file, b"one")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="link"):
        read_private(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(PermissionError, match="pipe is a link, or not the file that it should be"):
        read_private(tmp_path / "pipe")
    file.chmod(0o640)
    with pytest.raises(PermissionError, match=r"open to others .mode 640"):
        read_private(file)


@as_root
def test_a_file_of_another_user_is_not_read(tmp_path):
    write_private(tmp_path / "file", b"one")
    os.chown(tmp_path / "file", NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=f"file belongs to user {NOBODY}"):
        read_private(tmp_path / "file")


MOUNTS = r"""
22 1 253:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:30 / /home rw,relatime shared:3 - autofs systemd-1 rw,fd=50
40 23 0:50 / /home/ann rw,relatime shared:9 master:1 - nfs4 server:/home/ann rw,vers=4.2
41 22 0:51 / /big\040disk rw - xfs /dev/vdb rw
42 22 0:52 / /scratch rw - lustre 10.0.0.1@tcp:/lus rw,flock
43 22 0:53 / /over rw - ext4 /dev/vdc rw
44 22 0:54 / /over rw - some-new-file-system server rw
""".strip()


@pytest.mark.parametrize(
    ("path", "here"),
    [
        ("/var/one", True),
        ("/home/ann/.cache", False),
        ("/home/anna", False),
        ("/homes/ann", True),
        ("/big disk/one", True),
        ("/scratch/one", False),
        ("/over/one", False),
    ],
)
def test_disks_of_this_machine_are_told_by_their_kind(path, here, tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(MOUNTS + "\n")
    monkeypatch.setattr(private_folders, "_MOUNTS", tmp_path / "mountinfo")
    assert is_on_this_machine(Path(path)) == here


def test_the_mounts_of_this_machine(monkeypatch):
    assert not is_on_this_machine(Path("/proc/self"))
    monkeypatch.setattr(private_folders, "_MOUNTS", Path("/proc/absent"))
    assert is_on_this_machine(Path("/proc/self"))
