"""DIA source tables that others made, with the names, types and units of the DPDD."""

from ._column_names import CURRENT_NAMES
from ._dia_source_schema import dia_source_schema
from ._ingest_sources import SourceIngest, ingest_sources
from ._known_images import choose_instrument, known_detector_images
from ._read_columns import CatalogError, read_columns
from ._read_dia_sources import read_dia_sources
from ._standard_table import stack_tables, standard_record, standard_table

__all__ = [
    "CURRENT_NAMES",
    "CatalogError",
    "SourceIngest",
    "choose_instrument",
    "dia_source_schema",
    "ingest_sources",
    "known_detector_images",
    "read_columns",
    "read_dia_sources",
    "stack_tables",
    "standard_record",
    "standard_table",
]
