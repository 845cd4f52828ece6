"""The card of published searches."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.cards import Card

CARD: Final = Card(title="Searches of recurrent networks", version="1.0.0", description="Searches.")
