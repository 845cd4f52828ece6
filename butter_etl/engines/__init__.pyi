from .batched.engine import free_gpu_bytes as free_gpu_bytes
from .contract import (
    ENGINES as ENGINES,
)
from .contract import (
    HISTORIES as HISTORIES,
)
from .contract import (
    METRICS as METRICS,
)
from .contract import (
    OPTIMIZERS as OPTIMIZERS,
)
from .contract import (
    Device as Device,
)
from .contract import (
    Engine as Engine,
)
from .contract import (
    Loss as Loss,
)
from .contract import (
    Network as Network,
)
from .contract import (
    Optimization as Optimization,
)
from .contract import (
    OptimizerName as OptimizerName,
)
from .contract import (
    StackData as StackData,
)
from .contract import (
    State as State,
)
from .contract import (
    Trained as Trained,
)
from .contract import (
    Variant as Variant,
)
from .contract import (
    choose_engine as choose_engine,
)
from .contract import (
    load_engine as load_engine,
)
from .host import cpu_family as cpu_family
from .host import package_version as package_version
from .initialization import stack_starts as stack_starts
from .statistics import (
    AVG as AVG,
)
from .statistics import (
    MAX as MAX,
)
from .statistics import (
    MEDIAN as MEDIAN,
)
from .statistics import (
    MIN as MIN,
)
from .statistics import (
    NUM as NUM,
)
from .statistics import (
    NUM_FINITE as NUM_FINITE,
)
from .statistics import (
    Q1 as Q1,
)
from .statistics import (
    Q3 as Q3,
)
from .statistics import (
    STATISTICS_VERSION as STATISTICS_VERSION,
)
from .statistics import (
    STDDEV as STDDEV,
)
from .statistics import (
    Extremum as Extremum,
)
from .statistics import (
    Reduction as Reduction,
)
from .statistics import (
    Series as Series,
)
from .statistics import (
    Statistic as Statistic,
)
from .statistics import (
    SummaryBlock as SummaryBlock,
)
from .statistics import (
    summarize_experiment as summarize_experiment,
)
from .streams import Stream as Stream
from .streams import integers as integers
from .streams import normals as normals
from .streams import permutation as permutation
