"""Whose data an export says they are: the user's own authors, in every file; the software is named as software."""

import errno
import json
import os

import pytest
import yaml

from butter_etl.errors import UsageError
from butter_etl.exchange.manifest import read_manifest
from butter_etl.store.attributions import keep_attribution, read_attribution
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


def test_orcids_licences_and_dois_are_said_wherever_they_belong():
    who = check_attribution(
        ("Carberry, Josiah <https://orcid.org/0000-0002-1825-0097>", "Group (0000-0002-9079-593X)"),
        "Curves",
        "cc0-1.0",
        "https://doi.org/10.5281/zenodo.1234567",
    )
    assert (who.license, who.doi) == ("CC0-1.0", "10.5281/zenodo.1234567")
    cited = yaml.safe_load(citation(CARD, who))
    assert cited["authors"] == [
        {"family-names": "Carberry", "given-names": "Josiah", "orcid": "https://orcid.org/0000-0002-1825-0097"},
        {"name": "Group", "orcid": "https://orcid.org/0000-0002-9079-593X"},
    ]
    assert (cited["license"], cited["doi"]) == ("CC0-1.0", "10.5281/zenodo.1234567")
    assert who.spoken_authors() == "Josiah Carberry and Group"
    assert "licensed under [CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/)" in disclaimer(CARD, who)
    assert "[10.5281/zenodo.1234567](https://doi.org/10.5281/zenodo.1234567)" in disclaimer(CARD, who)
    licence = license_text(CARD, who)
    assert "CC0-1.0" in licence
    assert "Attribution 4.0" not in licence
    plain = yaml.safe_load(citation(CARD))
    assert (plain["license"], "doi" in plain) == ("CC-BY-4.0", False)
    assert Attribution(license="MIT").license_url == "https://spdx.org/licenses/MIT.html"
    assert Attribution(license="MIT OR Apache-2.0").license_url == "https://spdx.org/licenses/"


def test_a_store_that_cannot_be_written_says_so_and_the_export_has_what_was_given(store, tmp_path, monkeypatch, caplog):
    def refused(self, name, data):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    given = Attribution(AUTHORS[:1])
    with monkeypatch.context() as patched:
        patched.setattr(Location, "replace", refused)
        assert keep_attribution(store.location, given) == given
    (said,) = caplog.messages
    assert said.endswith("it does not keep authors, title, licence and DOI for exports that follow")
    assert read_attribution(store.location) == NOBODY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("Carberry, Josiah <0000-0002-1825-0098>",), None), "is no ORCID"),
        ((("Carberry, Josiah <someone@example.org>",), None), "an ORCID behind it"),
        (((), None, "CC-BY"), "--license 'CC-BY': is no identifier of SPDX, such as CC-BY-4.0"),
        (((), None, None, "zenodo.1234567"), "--doi 'zenodo.1234567': is no DOI"),
        (((), None, " "), "--license ' ': give a name in one line"),
    ],
)
def test_what_is_no_orcid_licence_or_doi_is_refused(arguments, message):
    with pytest.raises(UsageError) as found:
        check_attribution(*arguments)
    assert message in str(found.value)


def test_a_store_keeps_what_an_export_was_told(run, store, tmp_path):
    """Another folder, later, has the same authors and licence, and what it is given besides."""
    place = tmp_path / "store"
    export = ("export", place)
    sweep = ("--sweep", "primary", "--no-summary")
    assert run(*export, tmp_path / "plain", *sweep)[0] == 0
    assert not (place / "attribution.json").exists()
    told = ("--author", AUTHORS[0], "--license", "ODC-By-1.0")
    assert run(*export, tmp_path / "one", *sweep, *told)[0] == 0
    assert json.loads((place / "attribution.json").read_text())["license"] == "ODC-By-1.0"
    assert run(*export, tmp_path / "two", *sweep, "--doi", "10.1234/abc")[0] == 0
    manifest = read_manifest(Location(tmp_path / "two"))
    assert (manifest.authors, manifest.license, manifest.doi) == (AUTHORS[:1], "ODC-By-1.0", "10.1234/abc")
    described = json.loads((tmp_path / "two" / "croissant.json").read_text())
    assert described["license"] == "https://spdx.org/licenses/ODC-By-1.0.html"
    assert described["identifier"] == described["url"] == "https://doi.org/10.1234/abc"
    for checked in (place, tmp_path / "two"):
        assert run("verify", checked)[0] == 0
    (place / "attribution.json").write_text('{"authors": 3}')
    code, _, err = run(*export, tmp_path / "three", *sweep)
    assert code == 2
    assert "attribution.json: cannot be read" in err
    assert err.count("\n") == 1


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
