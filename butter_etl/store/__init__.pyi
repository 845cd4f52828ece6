from .copies import (
    adopt_copy as adopt_copy,
)
from .copies import (
    cached_copy as cached_copy,
)
from .copies import (
    copy_names as copy_names,
)
from .copies import (
    other_content as other_content,
)
from .copies import (
    read_copy as read_copy,
)
from .copies import (
    read_kept as read_kept,
)
from .copies import (
    require_copy as require_copy,
)
from .failures import Failure as Failure
from .files import (
    CHUNK_BYTES as CHUNK_BYTES,
)
from .files import (
    COMMON_METADATA as COMMON_METADATA,
)
from .files import (
    Location as Location,
)
from .files import (
    Pending as Pending,
)
from .files import (
    sync_folder as sync_folder,
)
from .files import (
    write_durably as write_durably,
)
from .fingerprints import (
    fingerprint as fingerprint,
)
from .fingerprints import (
    fingerprints_metadata as fingerprints_metadata,
)
from .fingerprints import (
    parse_fingerprints as parse_fingerprints,
)
from .fingerprints import (
    raw_fingerprints as raw_fingerprints,
)
from .fingerprints import (
    read_fingerprints as read_fingerprints,
)
from .frames import (
    empty_frame as empty_frame,
)
from .frames import (
    is_colocated as is_colocated,
)
from .frames import (
    read_executive_summary as read_executive_summary,
)
from .frames import (
    read_export as read_export,
)
from .frames import (
    read_runs as read_runs,
)
from .frames import (
    read_summary as read_summary,
)
from .frames import (
    to_arrow as to_arrow,
)
from .frames import (
    to_frame as to_frame,
)
from .layout import (
    DATA as DATA,
)
from .layout import (
    EXECUTIVE as EXECUTIVE,
)
from .layout import (
    EXPERIMENTS as EXPERIMENTS,
)
from .layout import (
    LAST_REPETITION as LAST_REPETITION,
)
from .layout import (
    NULL as NULL,
)
from .layout import (
    QUARANTINE as QUARANTINE,
)
from .layout import (
    RUNS as RUNS,
)
from .layout import (
    STATE as STATE,
)
from .layout import (
    SUMMARY as SUMMARY,
)
from .layout import (
    SUMMARY_FILE as SUMMARY_FILE,
)
from .layout import (
    SWEEPS as SWEEPS,
)
from .layout import (
    RunFile as RunFile,
)
from .layout import (
    key_text as key_text,
)
from .layout import (
    parse_partition as parse_partition,
)
from .layout import (
    partition_path as partition_path,
)
from .layout import (
    ranges_text as ranges_text,
)
from .locks import (
    FileLock as FileLock,
)
from .locks import (
    Holder as Holder,
)
from .locks import (
    create_exclusively as create_exclusively,
)
from .locks import (
    file_age as file_age,
)
from .locks import (
    is_dead as is_dead,
)
from .locks import (
    is_stale as is_stale,
)
from .locks import (
    read_holder as read_holder,
)
from .locks import (
    take_over as take_over,
)
from .locks import (
    this_process as this_process,
)
from .parquet import (
    common_metadata as common_metadata,
)
from .parquet import (
    parquet_writer as parquet_writer,
)
from .parquet import (
    write_common_metadata as write_common_metadata,
)
from .registry import Newcomer as Newcomer
from .registry import Registry as Registry
from .store import (
    Store as Store,
)
from .store import (
    encode_runs as encode_runs,
)
from .store import (
    quarantine_stamp as quarantine_stamp,
)
from .store import (
    require_state as require_state,
)
from .summaries import (
    LONG as LONG,
)
from .summaries import (
    SummaryReader as SummaryReader,
)
from .summaries import (
    delete_summaries as delete_summaries,
)
from .summaries import (
    executive_name as executive_name,
)
from .summaries import (
    is_executive_current as is_executive_current,
)
from .summaries import (
    rows_a_group as rows_a_group,
)
from .summaries import (
    summary_name as summary_name,
)
from .summaries import (
    write_summaries as write_summaries,
)
