"""Whose data an export says they are: the user's own authors, in every file; the software is named as software."""

import json

import pytest
import yaml

from butter_etl.errors import UsageError
from butter_etl.exchange.manifest import read_manifest
from butter_etl.store.files import Location
from butter_etl.store.store import Store
from butter_etl.studies.butter.card import CARD
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.cards import NOBODY, Attribution, check_attribution, citation, disclaimer, license_text
from tests.strategies import POLLEN, land

AUTHORS = ("Lovelace, Ada", 'O\'Brien, Seán "Jack": the 2nd', "Analytical Engine Group")
OURS = "The butter_etl authors"


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, BUTTER.fixed_ids.id_of(POLLEN), range(2))
    return store


def test_a_citation_file_names_persons_and_groups():
    cited = yaml.safe_load(citation(CARD, Attribution(AUTHORS, 'Curves: "of" pollen')))
    assert cited["title"] == 'Curves: "of" pollen'
    assert cited["authors"] == [
        {"family-names": "Lovelace", "given-names": "Ada"},
        {"family-names": "O'Brien", "given-names": 'Seán "Jack": the 2nd'},
        {"name": "Analytical Engine Group"},
    ]
    assert [one["type"] for one in cited["references"]] == ["data", "software"]
    assert cited["references"][1]["authors"] == [{"name": OURS}]


def test_without_authors_nobody_is_made_one():
    cited = yaml.safe_load(citation(CARD))
    assert cited["authors"] == [{"name": "The authors of these data"}]
    for text in (disclaimer(CARD, NOBODY), license_text(CARD, NOBODY)):
        assert OURS not in text
    assert "whose authors have neither made nor checked the data" in disclaimer(CARD, NOBODY)


def test_authors_are_said_as_a_text_has_them():
    assert Attribution(AUTHORS[:1]).spoken_authors() == "Ada Lovelace"
    assert Attribution(("B, A", "D, C", "E")).spoken_authors() == "A B, C D and E"
    assert Attribution((), "Mine").spoken(CARD) == '"Mine"'


@pytest.mark.parametrize(
    ("authors", "title"), [(("",), None), (("Lovelace,",), None), ((", Ada",), None), (("a\nb",), None), ((), " ")]
)
def test_what_is_no_name_is_refused(authors, title):
    with pytest.raises(UsageError, match=r"^--(author|title) "):
        check_attribution(authors, title)


def test_an_export_names_its_authors_everywhere(run, store, tmp_path):
    dest = tmp_path / "dest"
    arguments = ("export", tmp_path / "store", dest, "--sweep", "primary", "--no-summary")
    who = [word for author in AUTHORS for word in ("--author", author)]
    assert run(*arguments, *who, "--title", "Pollen")[0] == 0
    card, licence = ((dest / name).read_text() for name in ("README.md", "LICENSE"))
    assert card.startswith("# Pollen\n")
    for text in (card, licence):
        assert '"Pollen" by Ada Lovelace, ' in text
        assert "Analytical Engine Group" in text
    described = json.loads((dest / "croissant.json").read_text())
    assert described["name"] == "Pollen"
    assert [one["name"] for one in described["creator"]][::2] == ["Ada Lovelace", "Analytical Engine Group"]
    assert described["citeAs"].startswith('"Pollen" by Ada Lovelace')
    cited = yaml.safe_load((dest / "CITATION.cff").read_text())
    assert cited["authors"][0] == {"family-names": "Lovelace", "given-names": "Ada"}
    assert read_manifest(Location(dest)).authors == AUTHORS
    files = {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    assert run("verify", dest)[0] == 0
    # What was said once stays, until something else is said.
    assert run(*arguments)[0] == 0
    assert {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()} == files
    assert run(*arguments, "--author", "Group B")[0] == 0
    manifest = read_manifest(Location(dest))
    assert (manifest.authors, manifest.title) == (("Group B",), "Pollen")
    assert "Lovelace" not in (dest / "README.md").read_text()


def test_an_export_without_authors_names_the_software_as_software(run, store, tmp_path):
    dest = tmp_path / "dest"
    assert run("export", tmp_path / "store", dest, "--sweep", "primary", "--no-summary")[0] == 0
    for name in ("README.md", "LICENSE", "croissant.json", "manifest.json"):
        assert OURS not in (dest / name).read_text()
    cited = yaml.safe_load((dest / "CITATION.cff").read_text())
    assert OURS not in str(cited["authors"])
    assert b"authors" not in (dest / "manifest.json").read_bytes()
