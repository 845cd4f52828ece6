"""Formats of a study: runs come in from files besides Parquet and from archives, and go out by them."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from butter_etl.errors import SelectError, SourceError, StoreError, StudyError
from butter_etl.exchange import format_sources
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.exchange.imports import run_import
from butter_etl.exchange.manifest import read_manifest
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.formats import Format, Readout, Written
from butter_etl.studies.selection import Choice
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.other_study import FITS

TASK = "elsewhere"


def read_note(data, _name):
    """A note is JSON: a name, a solver, and the errors of its steps."""
    try:
        said = json.loads(data)
    except ValueError as error:
        raise SourceError(f"is no JSON ({error.args[0]})") from error
    if "errors" not in said:
        raise SourceError("has no errors")
    row = {
        "run_id": said["name"],
        "task": TASK,
        "solver": said["solver"],
        "knots": [1],
        "steps": len(said["errors"]),
        "error": said["errors"],
        "norm": said["errors"],
        "rejected": [0] * len(said["errors"]),
    }
    is_padded = data != note(said["name"], said["solver"], said["errors"])
    return Readout(pa.Table.from_pylist([row], schema=FITS.runs), ("spaces would go",) if is_padded else ())


def note(name, solver, errors):
    return json.dumps({"name": name, "solver": solver, "errors": errors}, separators=(",", ":")).encode()


def write_notes(rows):
    for row in rows.to_pylist():
        name = "same" if row["solver"] == "namesake" else row["run_id"]
        yield Written(f"{name}.note", note(row["run_id"], row["solver"], row["error"]))


NOTES = Format(
    name="notes",
    noun="note",
    note="A note is a line of JSON.",
    suffix=".note",
    media_type="application/json",
    read=read_note,
    write=write_notes,
    folder=lambda parameters: f"{parameters['solver']}_notes",
    doubt=lambda parameters: "it was guessed" if parameters["solver"] == "guess" else None,
)
NOTED = replace(FITS, formats={"notes": NOTES})


def make_notes(folder, solvers=("direct", "direct", "newton"), first=0):
    """Write a note for each solver; return the files by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number, solver in enumerate(solvers, first):
        data = note(f"n{number}", solver, [1 / (number + 1), 0.5, 1e-300])
        made[f"n{number}.note"] = data
        (folder / f"n{number}.note").write_bytes(data)
    return made


def bring(source, store, **options):
    return run_import(source, store, study=NOTED, **options)


def export(store, dest, where=(), **options):
    opened = Store.open(store, study=NOTED)
    how = ExportOptions(form="notes", **options)
    plan = plan_export(opened, Registry(opened).select(Choice(where=where)), how, everything=not where)
    return run_export(plan, opened, Location(dest), how)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def noted(monkeypatch):
    """Let exports find the study that their manifests name."""
    monkeypatch.setenv("BUTTER_ETL_STUDY", "tests.test_formats:NOTED")


@pytest.fixture
def store(tmp_path):
    """A store with three runs from notes, of two experiments."""
    make_notes(tmp_path / "notes")
    bring(tmp_path / "notes", tmp_path / "store")
    return tmp_path / "store"


# --- in ----------------------------------------------------------------------------------------------------------


def test_every_file_of_a_folder_lands_or_is_refused_by_name(tmp_path):
    make_notes(tmp_path / "in/a", ("direct", "newton"))
    make_notes(tmp_path / "in/b/c", ("direct",) * 3, first=2)
    (tmp_path / "in/torn.note").write_bytes(b'{"name":')
    (tmp_path / "in/b/less.NOTE").write_bytes(b'{"name": "x"}')
    (tmp_path / "in/null.note").write_bytes(note("null", None, [1.0]))
    (tmp_path / "in/.n9.note").write_bytes(b"of a Mac")
    (tmp_path / "in/padded.note").write_bytes(note("padded", "direct", [2.0]) + b" ")
    (tmp_path / "in/README.md").write_text("x")
    report = bring(tmp_path / "in", tmp_path / "store")
    assert (report.experiments, report.landed, report.present) == (3, 6, 0)
    assert len(report.refused) == 3
    assert report.refused[0] == f"{tmp_path}/in/b/less.NOTE: has no errors"
    assert report.refused[1] == f"{tmp_path}/in/null.note: column 'solver' is null in 1 of 1 rows"
    assert report.refused[2].startswith(f"{tmp_path}/in/torn.note: is no JSON (Expecting value")
    assert report.warnings == (
        f"exports write some of this otherwise: {tmp_path}/in/padded.note: spaces would go",
        "files whose names do not end in .note are left out: README.md",
    )
    again = bring(tmp_path / "in", tmp_path / "store")
    assert (again.landed, again.present, len(again.refused)) == (0, 6, 3)


def packed(kind, folder, path):
    """Pack a folder's files, in a folder of the archive, with what else archives have."""
    members = sorted(folder.rglob("*.note"))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("in")
            archive.writestr("__MACOSX/in/._n0.note", b"of a Mac")
            archive.writestr("in/README.md", b"x")
            for one in members:
                archive.write(one, f"in/{one.relative_to(folder)}")
        return
    with tarfile.open(path, f"w{kind}") as archive:
        archive.add(folder, "in")


@pytest.mark.parametrize(
    ("kind", "name"), [("", "a.tar"), (":gz", "a.tar.gz"), (":gz", "a.TGZ"), (":xz", "a.tar.xz"), ("zip", "a.zip")]
)
def test_archives_are_read_as_folders_are(tmp_path, kind, name):
    make_notes(tmp_path / "notes/deep")
    (tmp_path / "notes/torn.note").write_bytes(b"{")
    bring(tmp_path / "notes", tmp_path / "plain")
    packed(kind, tmp_path / "notes", tmp_path / name)
    report = bring(tmp_path / name, tmp_path / "store")
    assert (report.experiments, report.landed) == (2, 3)
    (line,) = report.refused
    assert line.startswith(f"{tmp_path}/{name}/in/torn.note: is no JSON")
    assert contents(tmp_path / "store/all_runs") == contents(tmp_path / "plain/all_runs")


def test_a_single_file_will_do(tmp_path):
    make_notes(tmp_path)
    assert bring(tmp_path / "n1.note", tmp_path / "store").landed == 1


def test_an_archive_that_is_torn_keeps_what_stands_before(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "notes").mkdir()
    for number in range(40):
        data = note(f"n{number:02d}", "direct", rng.random(100).tolist())
        (tmp_path / f"notes/n{number:02d}.note").write_bytes(data)
    packed(":gz", tmp_path / "notes", tmp_path / "a.tar.gz")
    data = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data[: len(data) // 2])
    report = bring(tmp_path / "a.tar.gz", tmp_path / "store")
    assert 0 < report.landed < 40
    (line,) = report.refused
    assert line.startswith(f"{tmp_path}/a.tar.gz: the rest of the archive cannot be read (")


def test_what_no_archive_should_have_is_refused(tmp_path, monkeypatch):
    make_notes(tmp_path / "notes")
    (tmp_path / "notes/large.note").write_bytes(note("large", "direct", [0.1] * 100))
    (tmp_path / "notes/link.note").symlink_to("n0.note")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "notes", "in")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "notes/large.note", "large.note")
        archive.write(tmp_path / "notes/n2.note", "n2.note")
    (tmp_path / "b.zip").write_bytes(b"PK, no archive")
    (tmp_path / "notes/link.note").unlink()
    monkeypatch.setitem(NOTED.formats, "notes", replace(NOTES, most_bytes=200))
    report = bring(tmp_path, tmp_path / "store")
    said = {line.removeprefix(f"{tmp_path}/").partition(":")[0]: line for line in report.refused}
    assert set(said) == {"a.tar/in/large.note", "a.tar/in/link.note", "a.zip/large.note", "b.zip", "notes/large.note"}
    assert "has 445 bytes, at most 200 will do" in said["a.zip/large.note"]
    assert "is a link in an archive" in said["a.tar/in/link.note"]
    assert "the rest of the archive cannot be read" in said["b.zip"]
    assert (report.landed, report.present) == (3, 4)


def test_the_batches_that_files_are_spooled_in_make_no_difference(tmp_path, monkeypatch):
    make_notes(tmp_path / "notes", ("direct", "newton") * 6)
    bring(tmp_path / "notes", tmp_path / "one")
    monkeypatch.setattr(format_sources, "_SPOOL_BYTES", 1)
    bring(tmp_path / "notes", tmp_path / "other")
    assert contents(tmp_path / "one/all_runs") == contents(tmp_path / "other/all_runs")


def test_where_nothing_can_be_read_nothing_is_made(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"in/{name}.note").write_bytes(b"{}")
    with pytest.raises(SourceError, match=r"in/a\.note: has no errors \(and 1 more file\)"):
        bring(tmp_path / "in", tmp_path / "store")
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(SourceError, match=r"its archives hold no note \(\*\.note\)"):
        bring(tmp_path / "empty.tar", tmp_path / "store")
    with pytest.raises(SourceError, match=r"holds no note \(\*\.note\) and no archive of some"):
        bring(tmp_path / "nowhere", tmp_path / "store", form="notes")
    with pytest.raises(SelectError, match=r"'note': unknown \(did you mean 'notes'\?\); known: parquet, notes"):
        bring(tmp_path / "in", tmp_path / "store", form="note")
    assert not (tmp_path / "store").exists()


def test_a_folder_with_parquet_files_is_of_these_unless_it_is_said(tmp_path, store):
    shutil.copytree(store / "all_runs", tmp_path / "both")
    make_notes(tmp_path / "both", ("cg",), first=7)
    assert (bring(tmp_path / "both", tmp_path / "a").landed, bring(store, tmp_path / "b").landed) == (3, 3)
    assert bring(tmp_path / "both", tmp_path / "c", form="notes").landed == 1
    assert bring(tmp_path / "both", tmp_path / "d", form="parquet").landed == 3


def test_runs_that_differ_are_refused_as_ever(tmp_path, store):
    (tmp_path / "n0.note").write_bytes(note("n0", "direct", [9.0, 9.0, 9.0]))
    with pytest.raises(Exception, match="runs differ from those of the same run_id"):
        bring(tmp_path / "n0.note", store)
    assert bring(tmp_path / "n0.note", store, prefer="store").landed == 0
    assert bring(tmp_path / "n0.note", store, prefer="source").replaced == 1


# --- out ---------------------------------------------------------------------------------------------------------


def test_files_go_out_as_they_came_in(tmp_path, store):
    report = export(store, tmp_path / "out", tar=True)
    assert report.directories == (("direct_notes", 2, 1), ("newton_notes", 1, 1))
    assert report.archives == ("direct_notes.tar", "newton_notes.tar")
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*/*")}
    assert found == contents(tmp_path / "notes")
    with tarfile.open(tmp_path / "out/direct_notes.tar") as archive:
        assert archive.getnames() == ["direct_notes/n0.note", "direct_notes/n1.note"]
    before = contents(tmp_path / "out")
    assert not export(store, tmp_path / "out", tar=True).changed
    assert contents(tmp_path / "out") == before
    manifest = read_manifest(Location(tmp_path / "out"))
    (one, _) = manifest.directories
    assert (one.frame, one.files, one.rows, one.experiments) == ("notes", 2, 2, 1)
    assert one.bytes == sum(len(found[name]) for name in ("n0.note", "n1.note"))
    assert {file.path: file.rows for file in manifest.files}["direct_notes/n0.note"] == 1


def test_exports_come_in_again_without_their_archives(tmp_path, store):
    export(store, tmp_path / "out", tar=True)
    report = bring(tmp_path / "out", tmp_path / "again")
    assert (report.landed, report.present) == (3, 0)
    assert contents(tmp_path / "again/all_runs") == contents(store / "all_runs")
    assert bring(tmp_path / "out/direct_notes.tar", tmp_path / "again").present == 2


def test_an_export_is_checked_by_its_manifest(tmp_path, store):
    out = tmp_path / "out"
    export(store, out, tar=True)
    report = run_verification(plan_verification(out))
    assert (report.findings, report.rows) == ((), 3)
    path = out / "direct_notes/n0.note"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    (out / "newton_notes/n2.note").unlink()
    (out / "newton_notes/more.note").write_bytes(b"x")
    found = {(one.kind, one.path) for one in run_verification(plan_verification(out)).findings}
    assert {
        ("altered-file", "direct_notes/n0.note"),
        ("wrong-archive", "direct_notes.tar"),
        ("missing-file", "newton_notes/n2.note"),
        ("unlisted-file", "newton_notes/more.note"),
    } <= found
    assert export(store, out, tar=True).changed
    assert run_verification(plan_verification(out)).findings == ()


def test_others_manifests_make_no_export(tmp_path):
    for text in ("{}", '{"format": 1}', "[", '{"format": 7}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(StoreError, match="is neither a store"):
            plan_verification(tmp_path)


def test_what_no_longer_belongs_is_taken_away(tmp_path, store):
    export(store, tmp_path / "out")
    make_notes(tmp_path / "more", ("newton",), first=8)
    bring(tmp_path / "more", store)
    export(store, tmp_path / "out", where=["solver=newton"])
    assert {path.name for path in (tmp_path / "out").glob("*/*")} == {"n0.note", "n1.note", "n2.note", "n8.note"}
    assert run_verification(plan_verification(tmp_path / "out")).findings == ()


def test_a_folder_of_others_is_in_the_way(tmp_path, store):
    (tmp_path / "out/direct_notes").mkdir(parents=True)
    (tmp_path / "out/direct_notes/mine.note").write_text("x")
    with pytest.raises(StoreError, match="direct_notes: holds other things"):
        export(store, tmp_path / "out")


def test_frames_and_formats_stand_side_by_side(tmp_path, store):
    opened, how = Store.open(store, study=NOTED), ExportOptions(summary=False)
    run_export(plan_export(opened, Registry(opened).select(Choice()), how), opened, Location(tmp_path / "out"), how)
    export(store, tmp_path / "out")
    manifest = read_manifest(Location(tmp_path / "out"))
    assert [one.name for one in manifest.directories] == ["all_runs", "direct_notes", "newton_notes"]
    assert run_verification(plan_verification(tmp_path / "out")).findings == ()
    card = (tmp_path / "out/README.md").read_text()
    assert "A note is a line of JSON. Such files are in `direct_notes/` and `newton_notes/`." in card
    assert "Of these, `all_runs` is a Parquet data set" in card
    assert card.count("### `all_runs`") == 1
    assert "### `direct_notes`" not in card
    described = json.loads((tmp_path / "out/croissant.json").read_text())
    (notes,) = [one for one in described["distribution"] if one["@id"] == "direct_notes-files"]
    assert (notes["includes"], notes["encodingFormat"]) == ("direct_notes/*.note", "application/json")
    assert [one["@id"] for one in described["recordSet"]] == ["all_runs"]
    assert len(list((tmp_path / "out/all_runs").rglob("*.parquet"))) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_card_without_frames_has_no_examples_in_code(tmp_path, store):
    export(store, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "Parquet" not in card.partition("## Disclaimer")[0]
    assert "## Code Examples" not in card
    assert "| `direct_notes/` | training runs, a note each | 1 | 2 | 2 |" in card
    mlcroissant = pytest.importorskip("mlcroissant")
    assert not mlcroissant.Dataset(str(tmp_path / "out/croissant.json")).metadata.ctx.issues.errors


def test_folders_have_other_names_where_that_is_wanted(tmp_path, store):
    export(store, tmp_path / "out", folders={"direct_notes": "mine"})
    assert {path.parent.name for path in (tmp_path / "out").glob("*/*.note")} == {"mine", "newton_notes"}
    export(store, tmp_path / "one", folders={"direct_notes": "all", "newton_notes": "all"})
    assert len(list((tmp_path / "one/all").iterdir())) == 3
    with pytest.raises(SelectError, match="no note goes to 'x'; folders: direct_notes, newton_notes"):
        export(store, tmp_path / "out", folders={"x": "y"})
    for name in ("", "a/b", ".a", "a.tar"):
        with pytest.raises(SelectError, match="is no name of a folder in an export"):
            export(store, tmp_path / "out", folders={"direct_notes": name})


def test_runs_that_files_would_not_tell_the_truth_of_are_refused(tmp_path, store):
    make_notes(tmp_path / "guess", ("guess",), first=5)
    bring(tmp_path / "guess", store)
    with pytest.raises(SelectError, match="of 1 experiment a note would not say how it was measured: it was guessed"):
        export(store, tmp_path / "out")
    export(store, tmp_path / "out", where=["solver=direct"])
    export(store, tmp_path / "out", as_measured=True)
    assert (tmp_path / "out/guess_notes/n5.note").is_file()


def test_what_makes_no_sense_of_a_format_is_refused(tmp_path, store):
    for options in ({"compact": True}, {"runs": False}):
        with pytest.raises(SelectError, match="leave --compact and --no-runs out"):
            export(store, tmp_path / "out", **options)
    opened = Store.open(store, study=NOTED)
    with pytest.raises(SelectError, match="--format 'x': unknown; known: parquet, notes"):
        plan_export(opened, Registry(opened).select(Choice()), ExportOptions(form="x"))
    make_notes(tmp_path / "same", ("namesake", "namesake"), first=30)
    bring(tmp_path / "same", store)
    with pytest.raises(StoreError, match=r"namesake_notes/same\.note: two runs have this name"):
        export(store, tmp_path / "out")


@pytest.mark.parametrize("name", ["a/b.note", ".note", ""])
def test_names_that_lead_elsewhere_are_refused(tmp_path, store, monkeypatch, name):
    form = replace(NOTES, write=lambda rows: [Written(name, b"x")])
    monkeypatch.setitem(NOTED.formats, "notes", form)
    with pytest.raises(SourceError, match="a run cannot have a file called"):
        export(store, tmp_path / "out")


@pytest.mark.parametrize(("key", "name"), [("notes", "other"), ("parquet", "parquet"), ("runs", "runs")])
def test_formats_have_names_of_their_own(key, name):
    with pytest.raises(StudyError, match=f"a format cannot be called '{key}'"):
        replace(FITS, formats={key: replace(NOTES, name=name)})


def test_an_export_that_was_killed_goes_on(tmp_path, store, monkeypatch):
    calls = count()

    def dies(rows):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return write_notes(rows)

    monkeypatch.setitem(NOTED.formats, "notes", replace(NOTES, write=dies))
    with pytest.raises(KeyboardInterrupt):
        export(store, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))
    monkeypatch.setitem(NOTED.formats, "notes", NOTES)
    export(store, tmp_path / "out")
    export(store, tmp_path / "other")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")
    assert not (tmp_path / "out/.unfinished").exists()


def test_a_format_goes_through_the_command(tmp_path, run, store):
    (tmp_path / "notes/torn.note").write_bytes(b"{")
    code, out, err = run("import", tmp_path / "notes", tmp_path / "mine")
    assert (code, out.splitlines()[0]) == (1, "2 experiments: 3 runs landed, 0 were there")
    assert f"warning: refused: {tmp_path}/notes/torn.note: is no JSON" in err
    assert "1 file was refused; the others were brought in [source]" in err
    code, out, err = run("import", tmp_path / "notes", tmp_path / "mine", "--json")
    assert (code, len(json.loads(out)["refused"])) == (1, 1)
    exporting = ("export", tmp_path / "mine", tmp_path / "out", "--all", "--format", "notes")
    assert run(*exporting, "--folder", "direct_notes=d")[0] == 0
    assert (tmp_path / "out/d/n1.note").is_file()
    code, _, err = run(*exporting, "--folder", "d")
    assert (code, "wants OLD=NEW" in err) == (2, True)


def test_files_of_a_format_need_no_folder_that_is_there(tmp_path):
    assert format_sources.list_formatted(NOTED, Path(tmp_path / "x")) is None
    assert format_sources.list_formatted(FITS, tmp_path) is None
