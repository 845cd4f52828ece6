"""Whose runs a store took from elsewhere: what the source says of itself, kept, and said by every export of them."""

import json
import shutil

import pytest
import yaml

import butter_etl as be
from butter_etl.errors import StoreError, UsageError
from butter_etl.exchange import imports
from butter_etl.exchange.imports import run_import
from butter_etl.exchange.manifest import read_manifest
from butter_etl.store.files import Location
from butter_etl.store.origins import SOURCES, keep_origin, read_origins
from butter_etl.store.store import Store
from butter_etl.studies.butter.card import CARD, PUBLISHED_DATA
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.cards import Attribution
from butter_etl.studies.origins import Origin, check_origin, origin_references
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.exports import contents, export
from tests.strategies import land
from tests.test_imports import all_rows, published_in_2022, write

MNIST = {"dataset": "mnist", "depth": 3}
THEIRS = [make_experiment(**MNIST, size=4096), make_experiment(**MNIST, size=8192)]
MINE = make_experiment(**MNIST, size=16384)
ADA = Attribution(("Lovelace, Ada <0000-0002-1825-0097>",), "Notes", "CC0-1.0", "10.1234/notes")
BY_ADA = Origin("theirs", ADA.title, ADA.authors, ADA.license, ADA.doi)
RNN = Origin(title="RNN trials", authors=("Google Inc.",), license="CC-BY-4.0", citation="Collins et al., 2017")


def store_of(path, *specs):
    store = Store.create(path)
    for spec in specs:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(2))
    return store


def ids_of(*specs):
    return frozenset(map(BUTTER.fixed_ids.id_of, specs))


def published(store, dest, **options):
    """The texts of an export of all runs of a store, by name."""
    export(store, dest, everything=True, summary=False, **options)
    assert not run_verification(plan_verification(dest)).findings
    found = {name: (dest / name).read_text() for name in ("README.md", "LICENSE", "CITATION.cff", "croissant.json")}
    return {**found, "manifest": read_manifest(Location(dest))}


@pytest.fixture
def theirs(tmp_path):
    """An export by others, of two experiments."""
    dest = tmp_path / "theirs"
    export(store_of(tmp_path / "their-store", *THEIRS), dest, everything=True, summary=False, attribution=ADA)
    return dest


def test_an_export_says_whose_runs_were_imported(theirs, tmp_path):
    """One experiment is ours, two are theirs."""
    store = store_of(tmp_path / "store", MINE)
    run_import(theirs, tmp_path / "store")
    assert read_origins(store.location) == {BY_ADA: ids_of(*THEIRS)}
    texts = published(store, tmp_path / "out", attribution=Attribution(("Babbage, Charles",), "Engines", "MIT"))
    assert '"Notes" by Ada Lovelace, https://doi.org/10.1234/notes (2 experiments)' in texts["README.md"]
    assert "licensed under [CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/)" in texts["README.md"]
    assert "those of 2 experiments come from the source at the end" in " ".join(texts["README.md"].split())
    assert texts["LICENSE"].startswith("These data are licensed under MIT")
    assert "This does not cover runs that were made by others" in texts["LICENSE"]
    assert "(2 experiments): licensed under CC0-1.0, https://creativecommons.org/" in texts["LICENSE"]
    cited = yaml.safe_load(texts["CITATION.cff"])
    assert cited["authors"] == [{"family-names": "Babbage", "given-names": "Charles"}]
    (source,) = [one for one in cited["references"] if one["title"] == "Notes"]
    assert (source["type"], source["doi"], source["license"]) == ("data", "10.1234/notes", "CC0-1.0")
    assert source["authors"][0]["orcid"] == "https://orcid.org/0000-0002-1825-0097"
    _, node = json.loads(texts["croissant.json"])["isBasedOn"]
    assert (node["name"], node["identifier"]) == ("Notes", "https://doi.org/10.1234/notes")
    assert node["license"] == "https://creativecommons.org/publicdomain/zero/1.0/"
    (said,) = texts["manifest"].sources
    assert said.origin == BY_ADA
    assert set(said.experiments) >= {"all_runs", "primary_sweep_runs"}


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_croissant_with_sources_is_valid(theirs, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    run_import(theirs, tmp_path / "store", origin=RNN)
    published(Store.open(tmp_path / "store"), tmp_path / "out")
    metadata = mlcroissant.Dataset(str(tmp_path / "out/croissant.json")).metadata
    assert not metadata.ctx.issues.errors
    assert metadata.name == CARD.title


def test_an_export_without_rows_of_a_source_does_not_name_it(theirs, tmp_path):
    store = store_of(tmp_path / "store", MINE)
    run_import(theirs, tmp_path / "store")
    export(store, tmp_path / "out", where=["size=16384"], summary=False)
    for name in ("README.md", "LICENSE", "CITATION.cff", "croissant.json", "manifest.json"):
        assert "Notes" not in (tmp_path / "out" / name).read_text()
    # A directory that stays from a former export keeps its sources, and one that is made anew loses them.
    export(store, tmp_path / "out", "primary", summary=False)
    assert [set(one.experiments) for one in read_manifest(Location(tmp_path / "out")).sources] == [
        {"primary_sweep_runs"}
    ]
    export(store, tmp_path / "out", where=["size=4096"], summary=False)
    (said,) = read_manifest(Location(tmp_path / "out")).sources
    assert set(said.experiments) == {"primary_sweep_runs", "all_runs"}
    export(store, tmp_path / "out", "primary", where=["size=16384"], summary=False)
    (said,) = read_manifest(Location(tmp_path / "out")).sources
    assert set(said.experiments) == {"all_runs"}


def test_a_source_of_a_source_is_not_lost(theirs, tmp_path):
    store = store_of(tmp_path / "store", MINE)
    run_import(theirs, tmp_path / "store")
    own = Attribution(("Babbage, Charles",), "Engines")
    published(store, tmp_path / "out", attribution=own)
    run_import(tmp_path / "out", tmp_path / "third")
    engines = Origin("out", "Engines", own.authors, "CC-BY-4.0")
    wanted = {engines: ids_of(MINE, *THEIRS), BY_ADA: ids_of(*THEIRS)}
    assert read_origins(Location(tmp_path / "third")) == wanted
    # One directory of an export, and a store, say it too.
    run_import(tmp_path / "out/primary_sweep_runs", tmp_path / "fourth")
    assert read_origins(Location(tmp_path / "fourth")) == wanted
    run_import(tmp_path / "third", tmp_path / "fifth")
    assert read_origins(Location(tmp_path / "fifth")) == wanted
    texts = published(Store.open(tmp_path / "fifth"), tmp_path / "last")
    assert '"Engines" by Charles Babbage (3 experiments)' in texts["README.md"]
    assert '"Notes" by Ada Lovelace' in texts["LICENSE"]


def test_the_same_import_again_changes_nothing_and_runs_that_are_there_stay_whose_they_are(theirs, tmp_path):
    store_of(tmp_path / "store", MINE, THEIRS[0])
    run_import(theirs, tmp_path / "store")
    before = contents(tmp_path / "store")
    run_import(theirs, tmp_path / "store")
    assert contents(tmp_path / "store") == before
    assert read_origins(Location(tmp_path / "store")) == {BY_ADA: ids_of(THEIRS[1])}
    run_import(tmp_path / "their-store", tmp_path / "their-store-again")
    run_import(theirs, tmp_path / "their-store-again")
    assert BY_ADA not in read_origins(Location(tmp_path / "their-store-again"))


def test_ones_own_export_says_nothing_twice(tmp_path):
    """What comes back is no other's: the export says of itself what its source says."""
    export(store_of(tmp_path / "store", MINE), tmp_path / "out", everything=True, summary=False)
    run_import(tmp_path / "out", tmp_path / "back")
    export(Store.open(tmp_path / "back"), tmp_path / "again", everything=True, summary=False)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    texts = published(Store.open(tmp_path / "back"), tmp_path / "named", attribution=ADA)
    assert f'"{CARD.title}" (1 experiment): licensed under' in texts["README.md"]


def test_what_is_said_later_takes_the_place_of_what_was_known(tmp_path, run):
    rows = all_rows(store_of(tmp_path / "store", *THEIRS).location.root)
    source = write(rows, tmp_path / "rows")
    arguments = ("import", source, tmp_path / "into")
    assert run(*arguments)[0] == 0
    assert read_origins(Location(tmp_path / "into")) == {Origin("rows"): ids_of(*THEIRS)}
    texts = published(Store.open(tmp_path / "into"), tmp_path / "out")
    assert '"rows" (2 experiments): no licence is stated.' in texts["README.md"]
    assert '"rows" (2 experiments): no licence is stated.' in texts["LICENSE"]
    said = ("--source-title", RNN.title, "--source-author", "Google Inc.", "--source-license", "cc-by-4.0")
    assert run(*arguments, *said, "--source-citation", RNN.citation)[0] == 0
    named = RNN.completed(Origin("rows"))
    assert read_origins(Location(tmp_path / "into")) == {named: ids_of(*THEIRS)}
    before = contents(tmp_path / "into")
    assert run(*arguments)[0] == 0
    assert contents(tmp_path / "into") == before
    texts = published(Store.open(tmp_path / "into"), tmp_path / "out")
    assert "no licence is stated" not in texts["README.md"]
    assert '"RNN trials" by Google Inc. (2 experiments): licensed under [CC-BY-4.0]' in texts["README.md"]
    assert 'Cite: "Collins et al., 2017"' in texts["README.md"]
    assert run("import", source, tmp_path / "into", "--source-doi", "none")[0] == 2
    code, _, err = run("import", source, tmp_path / "into", "--source-license", "CC-BY")
    assert (code, err.count("\n")) == (2, 1)
    assert "--source-license 'CC-BY': is no identifier of SPDX" in err


def test_runs_of_before_can_be_said_to_be_of_a_source(theirs, tmp_path):
    store = store_of(tmp_path / "store", MINE, *THEIRS)
    run_import(theirs, tmp_path / "store")
    assert read_origins(store.location) == {}
    run_import(theirs, tmp_path / "store", origin=Origin(citation="Lovelace, 1843"))
    said = Origin("theirs", ADA.title, ADA.authors, ADA.license, ADA.doi, "Lovelace, 1843")
    assert read_origins(store.location) == {said: ids_of(*THEIRS)}


def test_from_python(theirs, tmp_path):
    be.import_runs(theirs, tmp_path / "store", origin=Origin(doi="10.5281/zenodo.1234567"))
    (found,) = read_origins(Location(tmp_path / "store"))
    assert (found.title, found.doi) == ("Notes", "10.5281/zenodo.1234567")


def test_a_profile_says_whose_the_published_data_are(tmp_path):
    rows = all_rows(store_of(tmp_path / "store", *THEIRS).location.root)
    published_in_2022(rows, tmp_path / "butter")
    run_import(tmp_path / "butter", tmp_path / "into", profile="oedi-2022-08")
    (found,) = read_origins(Location(tmp_path / "into"))
    assert found == PUBLISHED_DATA.completed(Origin("butter"))
    texts = published(Store.open(tmp_path / "into"), tmp_path / "out")
    assert "https://doi.org/10.25984/1872441 (2 experiments): no licence is stated." in texts["LICENSE"]
    dois = [one.get("doi") for one in yaml.safe_load(texts["CITATION.cff"])["references"]]
    assert dois.count(PUBLISHED_DATA.doi) == 1, "the card cites it already"


CITED = """\
cff-version: 1.2.0
message: Cite it.
type: dataset
title: "Trials"
authors:
  - {family-names: Hopper, given-names: Grace, orcid: https://orcid.org/0000-0002-1825-0097}
  - name: Group
license: CC-BY-4.0
doi: 10.5281/zenodo.1234567
"""
CROISSANT = {
    "name": "Trials",
    "creator": [{"name": "Grace Hopper", "familyName": "Hopper", "givenName": "Grace"}, {"name": "Group"}],
    "license": "https://creativecommons.org/licenses/by/4.0/",
    "url": "https://doi.org/10.5281/zenodo.1234567",
}


@pytest.mark.parametrize("where", ["folder", "above"])
@pytest.mark.parametrize(
    ("name", "text", "author"),
    [
        ("CITATION.cff", CITED, "Hopper, Grace <0000-0002-1825-0097>"),
        ("croissant.json", json.dumps(CROISSANT), "Hopper, Grace"),
    ],
)
def test_files_beside_the_rows_say_it(tmp_path, name, text, author, where):
    rows = all_rows(store_of(tmp_path / "store", *THEIRS).location.root)
    write(rows, tmp_path / "data/rows")
    (tmp_path / "data/rows" / name if where == "folder" else tmp_path / "data" / name).write_text(text)
    report = run_import(tmp_path / "data/rows", tmp_path / "into")
    (found,) = read_origins(Location(tmp_path / "into"))
    assert found == Origin("rows", "Trials", (author, "Group"), "CC-BY-4.0", "10.5281/zenodo.1234567")
    assert not any("does not say" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    "text", ["[1]", "a: b: c", "type: dataset\nlicense: mine\n", "type: dataset\nauthors: 3\n", "title: x", ""]
)
def test_a_file_that_says_nothing_is_told(tmp_path, text):
    source = write(all_rows(store_of(tmp_path / "store", *THEIRS).location.root), tmp_path / "rows")
    (tmp_path / "rows/CITATION.cff").write_text(text)
    report = run_import(source, tmp_path / "into")
    assert any("CITATION.cff does not say whose the runs are" in warning for warning in report.warnings)
    assert set(read_origins(Location(tmp_path / "into"))) == {Origin("rows")}


def test_a_citation_file_of_software_that_the_rows_lie_in_says_nothing_of_them(tmp_path):
    write(all_rows(store_of(tmp_path / "store", *THEIRS).location.root), tmp_path / "checkout/rows")
    (tmp_path / "checkout/CITATION.cff").write_text(CITED.replace("type: dataset", "type: software"))
    report = run_import(tmp_path / "checkout/rows", tmp_path / "into")
    assert not any("CITATION" in warning for warning in report.warnings)
    assert set(read_origins(Location(tmp_path / "into"))) == {Origin("rows")}


def test_a_source_is_known_before_any_of_its_runs_lands(theirs, tmp_path, monkeypatch):
    """So an import that is killed, and given again, has not lost it."""
    run_import(theirs, tmp_path / "whole")

    def killed(items, settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(imports, "land_items", killed)
        with pytest.raises(KeyboardInterrupt):
            run_import(theirs, tmp_path / "store")
    assert read_origins(Location(tmp_path / "store")) == {BY_ADA: ids_of(*THEIRS)}
    export(Store.open(tmp_path / "store"), tmp_path / "none", where=["size=4096"], summary=False)
    assert read_manifest(Location(tmp_path / "none")).sources == (), "there are no runs yet"
    run_import(theirs, tmp_path / "store")
    there, wanted = contents(tmp_path / "store"), contents(tmp_path / "whole")
    assert {name: one for name, one in there.items() if not name.startswith("state/")} == {
        name: one for name, one in wanted.items() if not name.startswith("state/")
    }


def test_a_store_of_ones_own_is_no_source_but_one_that_says_whose_it_is_is_one(tmp_path):
    store = store_of(tmp_path / "store", MINE)
    run_import(tmp_path / "store", tmp_path / "plain")
    assert read_origins(Location(tmp_path / "plain")) == {}
    export(store, tmp_path / "out", everything=True, summary=False, attribution=ADA)
    run_import(tmp_path / "store", tmp_path / "into")
    assert read_origins(Location(tmp_path / "into")) == {
        Origin("store", ADA.title, ADA.authors, ADA.license, ADA.doi): ids_of(MINE)
    }
    run_import(tmp_path / "store", tmp_path / "said", origin=RNN)
    (found,) = read_origins(Location(tmp_path / "said"))
    assert found.title == RNN.title


def test_what_is_kept_is_checked(theirs, tmp_path):
    run_import(theirs, tmp_path / "store")
    folder = tmp_path / "store" / SOURCES
    (kept,) = folder.iterdir()
    assert "theirs" in kept.read_text()
    assert str(tmp_path) not in kept.read_text()
    good = kept.read_text()
    shutil.copy(kept, folder / "notes.json")
    kept.write_text(good.replace('"experiments": "', '"experiments": "x'))
    found = run_verification(plan_verification(tmp_path / "store")).findings
    assert {(one.kind, one.path) for one in found if one.path.startswith(SOURCES)} == {
        ("foreign-file", f"{SOURCES}/notes.json"),
        ("wrong-source", f"{SOURCES}/{kept.name}"),
    }
    with pytest.raises(StoreError, match=r"cannot be read .*; restore it from a copy"):
        export(Store.open(tmp_path / "store"), tmp_path / "out", everything=True, summary=False)


def test_sources_are_kept_side_by_side(tmp_path):
    store = store_of(tmp_path / "store", MINE)
    for ids in ({1, 2, 3}, {2, 3}, {3, 9}, set()):
        keep_origin(store.location, RNN, ids)
    assert read_origins(store.location) == {RNN: frozenset({1, 2, 3, 9})}
    assert len(list((tmp_path / "store" / SOURCES).iterdir())) == 2


@pytest.mark.parametrize("text", ["", " ", "two\nlines"])
def test_what_is_no_citation_is_refused(text):
    with pytest.raises(UsageError, match=r"^--source-citation .* in one line"):
        check_origin(citation=text)


def test_citation_files_have_only_licences_that_they_know():
    references = origin_references(CARD, {Origin("a: b", license="MIT OR Apache-2.0"): 1, RNN: 2})
    first, second = yaml.safe_load(references)
    assert first == {
        "type": "data",
        "title": "a: b",
        "notes": "licence: MIT OR Apache-2.0",
        "authors": [{"name": "The authors of a: b"}],
    }
    assert (second["license"], second["notes"]) == ("CC-BY-4.0", "Collins et al., 2017")
