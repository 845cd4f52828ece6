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
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from butter_etl.errors import UsageError, counted
from butter_etl.exchange.card import README
from butter_etl.exchange.manifest import ManifestDirectory, ManifestFile
from butter_etl.store import COMMON_METADATA
from butter_etl.studies import BUTTER_URL, COLUMNS, LICENSE_URL, NOBODY, PARTITION_KEYS, VERSION, Attribution, creators

CROISSANT = "croissant.json"
_PARQUET = "application/x-parquet"

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

_DESCRIPTION = (
    "Learning curves of fully connected networks over sweeps of their hyperparameters: runs, and summaries over the "
    "runs of each experiment, as partitioned Parquet."
)
_RESPONSIBLE_AI = {
    "rai:dataCollection": (
        "Every run is the training of a fully connected network from a seed, on the data set that it names, by the "
        "software butter_etl. Twenty statistics were recorded after every epoch. Nothing was collected from people."
    ),
    "rai:dataCollectionType": ["Software Collection", "Experiments"],
    "rai:dataCollectionMissingData": (
        "Experiments without a network within 20 % of the size that they ask for do not exist. Values that diverged "
        "are kept as they are, NaN or infinite."
    ),
    "rai:dataCollectionRawData": (
        "The data sets of PMLB and scikit-learn that were learned from, and those that whoever made the runs brought "
        "along under other names; their rows are not here."
    ),
    "rai:dataPreprocessingProtocol": [
        "Inputs and targets are one-hot encoded or scaled to [0, 1], by one rule for all data sets. Each run has its "
        "own random split into 80 % training and 20 % test rows."
    ],
    "rai:dataManipulationProtocol": (
        "Where label_noise is above 0, that share of the training labels was made wrong on purpose. Test labels never "
        "were."
    ),
    "rai:dataImputationProtocol": "None: no value was filled in.",
    "rai:dataAnnotationProtocol": ["None: the data have no annotations."],
    "rai:dataLimitations": [
        "Small fully connected networks and tabular or small image data only; conclusions may not carry over to other "
        "architectures, data or scales.",
        "Runs of one experiment share data and differ in seed, split and start weights: their spread says nothing of "
        "other data.",
    ],
    "rai:dataBiases": [
        "The data sets that were learned from are few, old and widely used; what networks learn well on them is not a "
        "sample of all problems.",
        "Experiments are points of grids chosen by their authors.",
    ],
    "rai:dataUseCases": [
        "Study of how architecture, size, regularization, noise and optimization shape learning curves.",
        "Benchmarks of methods that predict learning curves or choose hyperparameters.",
    ],
    "rai:dataSocialImpact": "They spare others the computation. They hold no model that could be put to use.",
    "rai:personalSensitiveInformation": [
        "None. One of the data sets that were learned from, adult, is of a census; none of its rows are here."
    ],
    "rai:dataReleaseMaintenancePlan": (
        "Experiments and runs keep their ids; a later release adds runs and recomputes summaries. manifest.json says "
        "what a release holds."
    ),
}


def croissant_json(
    directories: Iterable[ManifestDirectory],
    files: Iterable[ManifestFile],
    schemas: Mapping[str, pa.Schema],
    attribution: Attribution = NOBODY,
) -> str:
    """Return the text of ``croissant.json``; ``schemas`` are those by directory, partition keys included."""
    there = list(directories)
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": attribution.named(),
        "description": _DESCRIPTION,
        "version": VERSION,
        "license": LICENSE_URL,
        "url": README,
        "isBasedOn": BUTTER_URL,
        "creator": creators(attribution),
        "citeAs": attribution.spoken(),
        "keywords": ["deep learning", "learning curves", "hyperparameters", "fully connected networks"],
        **_published(),
        **_RESPONSIBLE_AI,
        "distribution": [*_file_objects(files), *map(_file_set, there)],
        "recordSet": [_record_set(one, schemas[one.name]) for one in there],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


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


def _file_set(one: ManifestDirectory) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{one.name}-files",
        "name": f"{one.name}-files",
        "description": f"The Parquet files of {one.name}: {one.files:,}.",
        "encodingFormat": _PARQUET,
        "includes": f"{one.name}/**/*.parquet",
    }


def _record_set(one: ManifestDirectory, schema: pa.Schema) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": one.name,
        "name": one.name,
        "description": f"{counted(one.rows, 'row')} of {counted(one.experiments, 'experiment')}.",
        "field": [_field(one, field) for field in schema],
    }


def _field(one: ManifestDirectory, field: pa.Field) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": f"{one.name}-files"}}
    if field.name in PARTITION_KEYS:
        source["extract"] = {"fileProperty": "fullpath"}
        source["transform"] = {"regex": f".*/{re.escape(field.name)}=([^/]+)/.*"}
    else:
        source["extract"] = {"column": field.name}
    is_list = pa.types.is_list(field.type)
    described = {
        "@type": "cr:Field",
        "@id": f"{one.name}/{field.name}",
        "name": field.name,
        "description": COLUMNS[field.name].note,
        "dataType": _data_type(field.type.value_type if is_list else field.type),
        "source": source,
    }
    return described | ({"isArray": True, "arrayShape": "-1"} if is_list else {})


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_floating(kind):
        return f"cr:Float{kind.bit_width}"
    return f"cr:{str(kind).replace('uint', 'UInt').replace('int', 'Int')}"
