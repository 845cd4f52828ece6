from .butter.calibration import measure_rates as measure_rates
from .butter.card import (
    BUTTER_URL as BUTTER_URL,
)
from .butter.card import (
    DISCLAIMER as DISCLAIMER,
)
from .butter.card import (
    LICENSE_TEXT as LICENSE_TEXT,
)
from .butter.card import (
    LICENSE_URL as LICENSE_URL,
)
from .butter.card import (
    REFERENCES as REFERENCES,
)
from .butter.card import (
    TITLE as TITLE,
)
from .butter.card import (
    VERSION as VERSION,
)
from .butter.card import (
    citation as citation,
)
from .butter.columns import (
    COLUMNS as COLUMNS,
)
from .butter.columns import (
    EXECUTIVE_FILE_SCHEMA as EXECUTIVE_FILE_SCHEMA,
)
from .butter.columns import (
    EXECUTIVE_SCHEMA as EXECUTIVE_SCHEMA,
)
from .butter.columns import (
    EXPERIMENT_COLUMNS as EXPERIMENT_COLUMNS,
)
from .butter.columns import (
    EXPERIMENTS_SCHEMA as EXPERIMENTS_SCHEMA,
)
from .butter.columns import (
    HISTORY_OF as HISTORY_OF,
)
from .butter.columns import (
    PARAMETERS as PARAMETERS,
)
from .butter.columns import (
    PARTITION_KEYS as PARTITION_KEYS,
)
from .butter.columns import (
    PARTITION_SCHEMA as PARTITION_SCHEMA,
)
from .butter.columns import (
    REDUCTION as REDUCTION,
)
from .butter.columns import (
    RUN_FILE_SCHEMA as RUN_FILE_SCHEMA,
)
from .butter.columns import (
    RUN_SCHEMA as RUN_SCHEMA,
)
from .butter.columns import (
    SUMMARY_FILE_SCHEMA as SUMMARY_FILE_SCHEMA,
)
from .butter.columns import (
    SUMMARY_SCHEMA as SUMMARY_SCHEMA,
)
from .butter.columns import (
    without_keys as without_keys,
)
from .butter.costs import (
    DEFAULT_RATES as DEFAULT_RATES,
)
from .butter.costs import (
    Rates as Rates,
)
from .butter.costs import (
    core_seconds as core_seconds,
)
from .butter.costs import (
    gpu_stack_limit as gpu_stack_limit,
)
from .butter.costs import (
    load_rates as load_rates,
)
from .butter.costs import (
    save_rates as save_rates,
)
from .butter.costs import (
    stack_limit as stack_limit,
)
from .butter.datasets import (
    DATASETS as DATASETS,
)
from .butter.datasets import (
    Dataset as Dataset,
)
from .butter.datasets import (
    DatasetInfo as DatasetInfo,
)
from .butter.datasets import (
    cached_dataset as cached_dataset,
)
from .butter.datasets import (
    data_folder as data_folder,
)
from .butter.datasets import (
    ensure_dataset as ensure_dataset,
)
from .butter.datasets import (
    info_of as info_of,
)
from .butter.datasets import (
    own_info as own_info,
)
from .butter.encoding import Task as Task
from .butter.experiments import (
    CHOICES as CHOICES,
)
from .butter.experiments import (
    MAX_REPETITIONS as MAX_REPETITIONS,
)
from .butter.experiments import (
    TASK as TASK,
)
from .butter.experiments import (
    TASK_VERSION as TASK_VERSION,
)
from .butter.experiments import (
    TEST_SPLIT_METHOD as TEST_SPLIT_METHOD,
)
from .butter.experiments import (
    VARIED as VARIED,
)
from .butter.experiments import (
    Experiment as Experiment,
)
from .butter.experiments import (
    ExperimentSpec as ExperimentSpec,
)
from .butter.experiments import (
    ForeignSpec as ForeignSpec,
)
from .butter.experiments import (
    OwnData as OwnData,
)
from .butter.experiments import (
    Regularizer as Regularizer,
)
from .butter.experiments import (
    RunSpec as RunSpec,
)
from .butter.experiments import (
    foreign_experiment as foreign_experiment,
)
from .butter.experiments import (
    is_own as is_own,
)
from .butter.experiments import (
    parse_command as parse_command,
)
from .butter.experiments import (
    parse_experiment as parse_experiment,
)
from .butter.experiments import (
    run_ids as run_ids,
)
from .butter.own_data import (
    Content as Content,
)
from .butter.own_data import (
    Declaration as Declaration,
)
from .butter.own_data import (
    content_sha256 as content_sha256,
)
from .butter.own_data import (
    describe as describe,
)
from .butter.own_data import (
    fetch_source as fetch_source,
)
from .butter.own_data import (
    find_source as find_source,
)
from .butter.own_data import (
    load_content as load_content,
)
from .butter.sweep_files import (
    Lookup as Lookup,
)
from .butter.sweep_files import (
    load_declarations as load_declarations,
)
from .butter.sweep_files import (
    load_sweep as load_sweep,
)
from .butter.sweep_files import (
    parse_sweep as parse_sweep,
)
from .butter.sweeps import (
    AXES as AXES,
)
from .butter.sweeps import (
    FIRST_CLAIMED_ID as FIRST_CLAIMED_ID,
)
from .butter.sweeps import (
    PUBLISHED as PUBLISHED,
)
from .butter.sweeps import (
    Cube as Cube,
)
from .butter.sweeps import (
    Sweep as Sweep,
)
from .butter.sweeps import (
    count_published as count_published,
)
from .butter.sweeps import (
    cube_codes as cube_codes,
)
from .butter.sweeps import (
    experiment_topology as experiment_topology,
)
from .butter.sweeps import (
    published_experiment as published_experiment,
)
from .butter.sweeps import (
    published_id as published_id,
)
from .butter.sweeps import (
    sweep_flags as sweep_flags,
)
from .butter.sweeps import (
    unknown_sweep as unknown_sweep,
)
from .butter.topology import find_topology as find_topology
from .butter.topology import network_structure as network_structure
from .butter.training import (
    network_of as network_of,
)
from .butter.training import (
    optimization_of as optimization_of,
)
from .butter.training import (
    prepare_engine as prepare_engine,
)
from .butter.training import (
    stack_data as stack_data,
)
from .butter.training import (
    stack_key as stack_key,
)
from .butter.training import (
    variant_of as variant_of,
)
from .columns import PageEncoding as PageEncoding
from .columns import usual_encoding as usual_encoding
from .identity import Value as Value
from .identity import canonical_float as canonical_float
from .identity import float_text as float_text
from .selection import (
    WHERE_KEYS as WHERE_KEYS,
)
from .selection import (
    Choice as Choice,
)
from .selection import (
    Condition as Condition,
)
from .selection import (
    Selection as Selection,
)
from .selection import (
    parse_condition as parse_condition,
)
