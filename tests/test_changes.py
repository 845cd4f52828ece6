"""Notes of changes in a bucket: what they correct, what they cost, and when they are forgotten."""

import os
import time

from butter_etl.store.changes import PUT, REMOVED, Changes


def corrected(changes, listed, there, folder=""):
    """The corrected list, and which objects were asked for."""
    asked = []

    def size_of(name):
        asked.append(name)
        return there.get(name)

    return changes.corrected(folder, listed, size_of), asked


def test_only_what_a_note_contradicts_is_asked_for(tmp_path):
    changes = Changes(tmp_path / "changes")
    assert corrected(changes, {"a": 1}, {}) == ({"a": 1}, [])
    changes.note("a", PUT)
    changes.note("b", REMOVED)
    assert corrected(changes, {"a": 1}, {}) == ({"a": 1}, [])
    there = {"a": 1}
    assert corrected(changes, {}, there) == (there, ["a"])
    found, asked = corrected(changes, {"b": 2}, there)
    assert (found, sorted(asked)) == (there, ["a", "b"])


def test_the_object_has_the_last_word(tmp_path):
    changes = Changes(tmp_path)
    changes.note("x/put and gone", PUT)
    changes.note("x/removed and back", REMOVED)
    listed, there = {"removed and back": 1, "other": 1}, {"x/removed and back": 5}
    assert corrected(changes, listed, there, "x")[0] == {"removed and back": 5, "other": 1}
    assert corrected(changes, {}, there, "y") == ({}, [])


def test_a_note_that_is_just_being_written_agrees_with_nothing(tmp_path):
    changes = Changes(tmp_path)
    (tmp_path / "a").touch()
    assert corrected(changes, {"a": 1}, {"a": 1}) == ({"a": 1}, ["a"])
    assert corrected(changes, {}, {}) == ({}, ["a"])


def test_old_notes_that_lists_agree_with_are_forgotten(tmp_path):
    changes = Changes(tmp_path)
    for name in ("old", "new", "contradicted"):
        changes.note(name, PUT)
    for name in ("old", "contradicted"):
        os.utime(tmp_path / name, (time.time() - 2 * 24 * 3600,) * 2)
    corrected(changes, {"old": 1, "new": 1}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contradicted", "new"]
