"""Profiles: what run frames of other schemas call a study's columns, as declared values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from butter_etl.studies.identity import Value
from butter_etl.studies.origins import Origin


class Profile(msgspec.Struct, frozen=True):
    """A schema of run frames. ``names`` maps our names of columns to its own, where they differ.

    ``constants`` are the values of columns that it does not have. ``source`` is the published data set that has this
    schema, where one does.
    """

    name: str
    names: Mapping[str, str] = {}
    constants: Mapping[str, Value] = {}
    source: Origin | None = None

    def theirs(self, column: str) -> str:
        """Return the name that the schema has for our ``column``."""
        return self.names.get(column, column)


#: The profile of a study's own schema, which every study has.
SEED = Profile("seed")
