from .card import README as README, data_card as data_card
from .croissant import CROISSANT as CROISSANT, croissant_json as croissant_json
from .export_plan import (
    ExportDirectory as ExportDirectory,
    ExportFile as ExportFile,
    ExportOptions as ExportOptions,
    plan_export as plan_export,
    plan_key as plan_key,
)
from .gathering import spool_rows as spool_rows
from .import_tasks import ImportSettings as ImportSettings
from .imports import (
    ImportReport as ImportReport,
    Workers as Workers,
    bring_in as bring_in,
    open_spool_folder as open_spool_folder,
    run_import as run_import,
    unknown_columns as unknown_columns,
)
from .manifest import (
    MANIFEST as MANIFEST,
    Manifest as Manifest,
    ManifestDirectory as ManifestDirectory,
    ManifestFile as ManifestFile,
    hash_file as hash_file,
)
from .merging import Prefer as Prefer
from .profiles import (
    PROFILES as PROFILES,
    check_columns as check_columns,
    conform as conform,
    find_profile as find_profile,
)
from .publication import Publication as Publication, check_place as check_place
from .rewriting import filter_file as filter_file, gather_files as gather_files, write_archive as write_archive
from .sources import FileScan as FileScan
