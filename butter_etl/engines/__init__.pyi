from .batched.engine import free_gpu_bytes as free_gpu_bytes
from .contract import (
    Device as Device,
    ENGINES as ENGINES,
    Engine as Engine,
    HISTORIES as HISTORIES,
    Loss as Loss,
    METRICS as METRICS,
    Network as Network,
    OPTIMIZERS as OPTIMIZERS,
    Optimization as Optimization,
    OptimizerName as OptimizerName,
    StackData as StackData,
    State as State,
    Trained as Trained,
    Variant as Variant,
    choose_engine as choose_engine,
    load_engine as load_engine,
)
from .host import cpu_family as cpu_family, package_version as package_version
from .initialization import stack_starts as stack_starts
from .statistics import (
    AVG as AVG,
    Extremum as Extremum,
    MAX as MAX,
    MEDIAN as MEDIAN,
    MIN as MIN,
    NUM as NUM,
    NUM_FINITE as NUM_FINITE,
    Q1 as Q1,
    Q3 as Q3,
    Reduction as Reduction,
    STATISTICS_VERSION as STATISTICS_VERSION,
    STDDEV as STDDEV,
    Series as Series,
    Statistic as Statistic,
    SummaryBlock as SummaryBlock,
    summarize_experiment as summarize_experiment,
)
from .streams import Stream as Stream, integers as integers, normals as normals, permutation as permutation
