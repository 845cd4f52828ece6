"""``croissant.json``: a published data set described for machines, as Croissant 1.1 with the responsible-AI
fields.

``datePublished`` is the day of ``SOURCE_DATE_EPOCH`` (unix seconds), the convention for outputs that can be reproduced;
without it there is none, since the same data are to make the same file on any day.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from butter_etl.errors import UsageError, counted
from butter_etl.exchange.card import README
from butter_etl.exchange.manifest import ManifestDirectory, ManifestFile
from butter_etl.exchange.recipes import spelled_type
from butter_etl.store import COMMON_METADATA, NULL, key_text
from butter_etl.studies import NOBODY, Attribution, Origins, Study, creators, origin_collection, origin_nodes

CROISSANT = "croissant.json"
_PARQUET = "application/x-parquet"

#: How the data came to be.
_COLLECTION: Final = "rai:dataCollection"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant_json(
    study: Study,
    directories: Iterable[ManifestDirectory],
    files: Iterable[ManifestFile],
    schemas: Mapping[str, pa.Schema],
    attribution: Attribution = NOBODY,
    origins: Origins | None = None,
) -> str:
    """Return the text of ``croissant.json``; ``schemas`` are those by directory, partition keys included.

    A directory without a schema is in a format of the study's, whose files stand there as a set.

    ``origins`` are the sources of imported runs, with their numbers of experiments.
    """
    there, all_files, card = list(directories), list(files), study.card
    null = _null_keys(all_files)
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": attribution.named(card),
        "description": " ".join((card.summary or card.description).split()),
        "version": card.version,
        "license": attribution.license_url,
        "url": attribution.doi_url or README,
        **({"identifier": attribution.doi_url} if attribution.doi else {}),
        **_based_on(study, origins or {}),
        "creator": creators(attribution),
        "citeAs": attribution.spoken(card),
        **({"keywords": list(card.keywords)} if card.keywords else {}),
        **_published(),
        **_responsible_ai(study, origins or {}),
        "distribution": [*_file_objects(all_files), *(_file_set(study, one) for one in there)],
        "recordSet": [
            _record_set(study, one, schemas[one.name], null.get(one.name, ())) for one in there if one.name in schemas
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _responsible_ai(study: Study, origins: Origins) -> dict[str, Any]:
    """Return what the study's card says for responsible AI, and that imported runs were made by others."""
    said = study.card.responsible_ai
    if not origins:
        return dict(said)
    collected = " ".join(filter(None, [said.get(_COLLECTION), origin_collection(origins)]))
    return {**said, _COLLECTION: collected}


def _based_on(study: Study, origins: Origins) -> dict[str, Any]:
    """Return what the data build on: what the study's card names, and the sources of imported runs."""
    nodes = origin_nodes(study.card, origins)
    if not nodes:
        return {"isBasedOn": study.card.url} if study.card.url else {}
    return {"isBasedOn": [*([study.card.url] if study.card.url else []), *nodes]}


def publication_day() -> str | None:
    """Return the day of SOURCE_DATE_EPOCH, None where it is not set. Raises UsageError where it is no time."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return None
    try:
        return datetime.fromtimestamp(int(epoch), UTC).date().isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"SOURCE_DATE_EPOCH: wants a whole number of seconds since 1970, such as {int(time.time())}; got {epoch!r}"
        ) from error


def _published() -> dict[str, str]:
    day = publication_day()
    return {} if day is None else {"datePublished": day}


def _file_objects(files: Iterable[ManifestFile]) -> list[dict[str, Any]]:
    """Return the entries of archives and schemas, one by one; the Parquet files are sets."""
    objects = []
    for file in sorted(files, key=lambda one: one.path):
        is_archive = "/" not in file.path and file.path.endswith(".tar")
        if not (is_archive or file.path.endswith(f"/{COMMON_METADATA}")):
            continue
        objects.append(
            {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": file.path,
                "contentSize": f"{file.bytes} B",
                "encodingFormat": "application/x-tar" if is_archive else _PARQUET,
                "sha256": file.sha256,
            }
        )
    return objects


def _file_set(study: Study, one: ManifestDirectory) -> dict[str, Any]:
    form = study.formats.get(one.frame)
    kind = "Parquet files" if form is None else counted(2, form.noun).partition(" ")[2]
    return {
        "@type": "cr:FileSet",
        "@id": f"{one.name}-files",
        "name": f"{one.name}-files",
        "description": f"The {kind} of {one.name}: {one.files:,}.",
        "encodingFormat": _PARQUET if form is None else form.media_type,
        "includes": f"{one.name}/**/*.parquet" if form is None else f"{one.name}/*{form.suffix}",
    }


def _null_keys(files: Iterable[ManifestFile]) -> dict[str, set[str]]:
    """Return for each directory the partition keys that are null in the path of one of its files."""
    found: dict[str, set[str]] = {}
    for file in files:
        if f"={NULL}/" not in file.path:
            continue
        directory, *segments = file.path.split("/")
        found.setdefault(directory, set()).update(
            segment.removesuffix(f"={NULL}") for segment in segments if segment.endswith(f"={NULL}")
        )
    return found


def _record_set(study: Study, one: ManifestDirectory, schema: pa.Schema, null_keys: Collection[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": one.name,
        "name": one.name,
        "description": f"{counted(one.rows, 'row')} of {counted(one.experiments, 'experiment')}.",
        "field": [_field(study, one, field, is_null=field.name in null_keys) for field in schema],
    }


def _field(study: Study, one: ManifestDirectory, field: pa.Field, *, is_null: bool) -> dict[str, Any]:
    """Return the description of a column; ``is_null`` says whether it is a partition key that is null in some path.

    Croissant has no null for a part of a path, and its reader turns the text into whatever type the field has: that
    of a null is no number, and any text is true. So such keys, and those that are true or false, are described as text.
    """
    source: dict[str, Any] = {"fileSet": {"@id": f"{one.name}-files"}}
    if field.name in study.keys:
        source["extract"] = {"fileProperty": "fullpath"}
        source["transform"] = {"regex": f".*/{re.escape(field.name)}=([^/]+)/.*"}
    else:
        source["extract"] = {"column": field.name}
    is_list = pa.types.is_list(field.type)
    kind = field.type.value_type if is_list else field.type
    # A directory of an earlier export may have columns that the study declares no more.
    notes = [study.columns[field.name].note] if field.name in study.columns else []
    if pa.types.is_boolean(kind) and "transform" in source:
        notes.append(f"comes out as the text {key_text(True)} or {key_text(False)}" + f", a null as {NULL}" * is_null)
        kind = pa.string()
    elif is_null and pa.types.is_string(kind):
        notes.append(f"a null comes out as the text {NULL}")
    elif is_null:
        notes.append(f"a null comes out as the text {NULL}, every other value as the text of a {spelled_type(kind)}")
        kind = pa.string()
    described = {
        "@type": "cr:Field",
        "@id": f"{one.name}/{field.name}",
        "name": field.name,
        **({"description": "; ".join(notes)} if notes else {}),
        "dataType": _data_type(kind),
        "source": source,
    }
    return described | ({"isArray": True, "arrayShape": "-1"} if is_list else {})


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    name = spelled_type(kind)
    return f"cr:{name.replace('uint', 'UInt') if name.startswith('u') else name.capitalize()}"
