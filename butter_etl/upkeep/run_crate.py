"""The crate around a certificate: RO-Crate 1.1, by the profile Process Run Crate 0.5.

The audit is an action of a piece of software: its instrument is this package, its object the data, its results the
certificate and its page (https://www.researchobject.org/workflow-run-crate/profiles/process_run_crate).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from butter_etl.errors import counted
from butter_etl.upkeep.certificates import FILE, Certificate

CRATE: Final = "ro-crate-metadata.json"
_PROFILE: Final = "https://w3id.org/ro/wfrun/process/0.5"
_CONTEXT: Final = ("https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context")
_SOFTWARE: Final = "#butter_etl"
_DATA: Final = "#data"
_AUDIT: Final = "#audit"
_TYPES: Final = {".json": "application/json", ".html": "text/html"}
_NAMES: Final = {".json": "Certificate, for machines", ".html": "Certificate, for people"}


def crate_bytes(certificate: Certificate, files: Mapping[str, bytes]) -> bytes:
    """Return the metadata of a crate that holds a certificate's files, whose contents are given by name."""
    graph = [
        _descriptor(),
        _root(certificate, list(files)),
        _profile(),
        _action(certificate, list(files)),
        _software(certificate),
        _data(certificate),
        _license(),
        *(_file(name, content) for name, content in files.items()),
    ]
    text = json.dumps({"@context": list(_CONTEXT), "@graph": graph}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def _descriptor() -> dict[str, Any]:
    return {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }


def _root(certificate: Certificate, names: list[str]) -> dict[str, Any]:
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Audit of {certificate.data.study}",
        "description": f"{counted(len(certificate.runs), 'run')} drawn by chance, trained again and compared.",
        "datePublished": certificate.ended,
        "license": {"@id": _LICENSE},
        "conformsTo": {"@id": _PROFILE},
        "hasPart": [{"@id": name} for name in names],
        "mentions": {"@id": _AUDIT},
        "mainEntity": {"@id": FILE},
    }


def _profile() -> dict[str, Any]:
    return {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}


def _action(certificate: Certificate, names: list[str]) -> dict[str, Any]:
    verdict = "nothing is wrong" if certificate.is_sound else f"{counted(len(certificate.faults), 'run')} at fault"
    return {
        "@id": _AUDIT,
        "@type": "CreateAction",
        "name": f"Audit of {certificate.drawn.sample} of the runs, drawn by seed {certificate.drawn.seed}",
        "description": f"{certificate.drawn.rule}; {verdict}",
        "instrument": {"@id": _SOFTWARE},
        "object": {"@id": _DATA},
        "result": [{"@id": name} for name in names],
        "startTime": certificate.began,
        "endTime": certificate.ended,
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }


def _software(certificate: Certificate) -> dict[str, Any]:
    return {
        "@id": _SOFTWARE,
        "@type": "SoftwareApplication",
        "name": "butter_etl",
        "softwareVersion": str(certificate.software.get("butter-etl")),
    }


def _data(certificate: Certificate) -> dict[str, Any]:
    data = certificate.data
    return {
        "@id": _DATA,
        "@type": "CreativeWork",
        "name": f"Run frame of the study {data.study}",
        "description": f"{counted(data.rows, 'run')} of {'a store' if data.kind == 'store' else 'an export'}",
        "identifier": data.manifest_sha256 or data.names_sha256,
    }


_LICENSE: Final = "https://spdx.org/licenses/CC0-1.0"


def _license() -> dict[str, Any]:
    """Return the licence of a certificate: facts, free for everybody. That of the data is the data's own."""
    return {
        "@id": _LICENSE,
        "@type": "CreativeWork",
        "name": "CC0-1.0",
        "description": "Creative Commons Zero 1.0 Universal",
    }


def _file(name: str, content: bytes) -> dict[str, Any]:
    suffix = name[name.rindex(".") :]
    return {
        "@id": name,
        "@type": "File",
        "name": _NAMES[suffix],
        "encodingFormat": _TYPES[suffix],
        "contentSize": str(len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
