from .butter.calibration import measure_rates as measure_rates
from .butter.card import (
    BUTTER_URL as BUTTER_URL,
    DISCLAIMER as DISCLAIMER,
    LICENSE_TEXT as LICENSE_TEXT,
    LICENSE_URL as LICENSE_URL,
    REFERENCES as REFERENCES,
    TITLE as TITLE,
    VERSION as VERSION,
    citation as citation,
)
from .butter.columns import (
    COLUMNS as COLUMNS,
    EXECUTIVE_FILE_SCHEMA as EXECUTIVE_FILE_SCHEMA,
    EXECUTIVE_SCHEMA as EXECUTIVE_SCHEMA,
    EXPERIMENTS_SCHEMA as EXPERIMENTS_SCHEMA,
    EXPERIMENT_COLUMNS as EXPERIMENT_COLUMNS,
    HISTORY_OF as HISTORY_OF,
    PARAMETERS as PARAMETERS,
    PARTITION_KEYS as PARTITION_KEYS,
    PARTITION_SCHEMA as PARTITION_SCHEMA,
    REDUCTION as REDUCTION,
    RUN_FILE_SCHEMA as RUN_FILE_SCHEMA,
    RUN_SCHEMA as RUN_SCHEMA,
    SUMMARY_FILE_SCHEMA as SUMMARY_FILE_SCHEMA,
    SUMMARY_SCHEMA as SUMMARY_SCHEMA,
    without_keys as without_keys,
)
from .butter.costs import (
    DEFAULT_RATES as DEFAULT_RATES,
    Rates as Rates,
    core_seconds as core_seconds,
    gpu_stack_limit as gpu_stack_limit,
    load_rates as load_rates,
    save_rates as save_rates,
    stack_limit as stack_limit,
)
from .butter.datasets import (
    DATASETS as DATASETS,
    Dataset as Dataset,
    DatasetInfo as DatasetInfo,
    cached_dataset as cached_dataset,
    data_folder as data_folder,
    ensure_dataset as ensure_dataset,
    info_of as info_of,
    own_info as own_info,
)
from .butter.encoding import Task as Task
from .butter.experiments import (
    CHOICES as CHOICES,
    Experiment as Experiment,
    ExperimentSpec as ExperimentSpec,
    ForeignSpec as ForeignSpec,
    MAX_REPETITIONS as MAX_REPETITIONS,
    OwnData as OwnData,
    Regularizer as Regularizer,
    RunSpec as RunSpec,
    TASK as TASK,
    TASK_VERSION as TASK_VERSION,
    TEST_SPLIT_METHOD as TEST_SPLIT_METHOD,
    VARIED as VARIED,
    foreign_experiment as foreign_experiment,
    is_own as is_own,
    parse_command as parse_command,
    parse_experiment as parse_experiment,
    run_ids as run_ids,
)
from .butter.own_data import (
    Content as Content,
    Declaration as Declaration,
    content_sha256 as content_sha256,
    describe as describe,
    fetch_source as fetch_source,
    find_source as find_source,
    load_content as load_content,
)
from .butter.sweep_files import (
    Lookup as Lookup,
    load_declarations as load_declarations,
    load_sweep as load_sweep,
    parse_sweep as parse_sweep,
)
from .butter.sweeps import (
    AXES as AXES,
    Cube as Cube,
    FIRST_CLAIMED_ID as FIRST_CLAIMED_ID,
    PUBLISHED as PUBLISHED,
    Sweep as Sweep,
    count_published as count_published,
    cube_codes as cube_codes,
    experiment_topology as experiment_topology,
    published_experiment as published_experiment,
    published_id as published_id,
    sweep_flags as sweep_flags,
    unknown_sweep as unknown_sweep,
)
from .butter.topology import find_topology as find_topology, network_structure as network_structure
from .butter.training import (
    network_of as network_of,
    optimization_of as optimization_of,
    prepare_engine as prepare_engine,
    stack_data as stack_data,
    stack_key as stack_key,
    variant_of as variant_of,
)
from .columns import PageEncoding as PageEncoding, usual_encoding as usual_encoding
from .identity import Value as Value, canonical_float as canonical_float, float_text as float_text
from .selection import (
    Choice as Choice,
    Condition as Condition,
    Selection as Selection,
    WHERE_KEYS as WHERE_KEYS,
    parse_condition as parse_condition,
)
