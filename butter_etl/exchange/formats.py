"""The formats of a study, by the names that commands have for them."""

from __future__ import annotations

from butter_etl.errors import SelectError, suggestion
from butter_etl.studies import PARQUET, Format, Study


def find_format(study: Study, name: str | None) -> Format | None:
    """Return the format of a study that is called ``name``, None for Parquet; raise SelectError for any other name."""
    if name is None or name == PARQUET:
        return None
    if name not in study.formats:
        known = [PARQUET, *study.formats]
        raise SelectError(f"--format {name!r}: unknown{suggestion(name, known)}; known: {', '.join(known)}")
    return study.formats[name]
