from .copies import (
    adopt_copy as adopt_copy,
    cached_copy as cached_copy,
    copy_names as copy_names,
    other_content as other_content,
    read_copy as read_copy,
    read_kept as read_kept,
    require_copy as require_copy,
)
from .failures import Failure as Failure
from .files import (
    CHUNK_BYTES as CHUNK_BYTES,
    COMMON_METADATA as COMMON_METADATA,
    Location as Location,
    Pending as Pending,
    sync_folder as sync_folder,
    write_durably as write_durably,
)
from .fingerprints import (
    fingerprint as fingerprint,
    fingerprints_metadata as fingerprints_metadata,
    parse_fingerprints as parse_fingerprints,
    raw_fingerprints as raw_fingerprints,
    read_fingerprints as read_fingerprints,
)
from .frames import (
    empty_frame as empty_frame,
    is_colocated as is_colocated,
    read_executive_summary as read_executive_summary,
    read_export as read_export,
    read_runs as read_runs,
    read_summary as read_summary,
    to_arrow as to_arrow,
    to_frame as to_frame,
)
from .layout import (
    DATA as DATA,
    EXECUTIVE as EXECUTIVE,
    EXPERIMENTS as EXPERIMENTS,
    LAST_REPETITION as LAST_REPETITION,
    NULL as NULL,
    QUARANTINE as QUARANTINE,
    RUNS as RUNS,
    RunFile as RunFile,
    STATE as STATE,
    SUMMARY as SUMMARY,
    SUMMARY_FILE as SUMMARY_FILE,
    SWEEPS as SWEEPS,
    key_text as key_text,
    parse_partition as parse_partition,
    partition_path as partition_path,
    ranges_text as ranges_text,
)
from .locks import (
    FileLock as FileLock,
    Holder as Holder,
    create_exclusively as create_exclusively,
    file_age as file_age,
    is_dead as is_dead,
    is_stale as is_stale,
    read_holder as read_holder,
    take_over as take_over,
    this_process as this_process,
)
from .parquet import (
    common_metadata as common_metadata,
    parquet_writer as parquet_writer,
    write_common_metadata as write_common_metadata,
)
from .registry import Newcomer as Newcomer, Registry as Registry
from .store import (
    Store as Store,
    encode_runs as encode_runs,
    quarantine_stamp as quarantine_stamp,
    require_state as require_state,
)
from .summaries import (
    LONG as LONG,
    SummaryReader as SummaryReader,
    delete_summaries as delete_summaries,
    executive_name as executive_name,
    is_executive_current as is_executive_current,
    rows_a_group as rows_a_group,
    summary_name as summary_name,
    write_summaries as write_summaries,
)
