from .card import README as README
from .card import data_card as data_card
from .croissant import CROISSANT as CROISSANT
from .croissant import croissant_json as croissant_json
from .export_plan import (
    ExportDirectory as ExportDirectory,
)
from .export_plan import (
    ExportFile as ExportFile,
)
from .export_plan import (
    ExportOptions as ExportOptions,
)
from .export_plan import (
    plan_export as plan_export,
)
from .export_plan import (
    plan_key as plan_key,
)
from .gathering import spool_rows as spool_rows
from .import_tasks import ImportSettings as ImportSettings
from .imports import (
    ImportReport as ImportReport,
)
from .imports import (
    Workers as Workers,
)
from .imports import (
    bring_in as bring_in,
)
from .imports import (
    open_spool_folder as open_spool_folder,
)
from .imports import (
    run_import as run_import,
)
from .imports import (
    unknown_columns as unknown_columns,
)
from .manifest import (
    MANIFEST as MANIFEST,
)
from .manifest import (
    Manifest as Manifest,
)
from .manifest import (
    ManifestDirectory as ManifestDirectory,
)
from .manifest import (
    ManifestFile as ManifestFile,
)
from .manifest import (
    hash_file as hash_file,
)
from .merging import Prefer as Prefer
from .profiles import (
    PROFILES as PROFILES,
)
from .profiles import (
    check_columns as check_columns,
)
from .profiles import (
    conform as conform,
)
from .profiles import (
    find_profile as find_profile,
)
from .publication import Publication as Publication
from .publication import check_place as check_place
from .rewriting import filter_file as filter_file
from .rewriting import gather_files as gather_files
from .rewriting import write_archive as write_archive
from .sources import FileScan as FileScan
