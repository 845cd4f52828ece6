"""Both schemas against tables typed from the published document's column lists, name by name, type by type."""

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.frames import SUMMARY
from butter_etl.summarize import plan_summaries, summarize_partition
from tests.strategies import POLLEN, land

PARAMETERS = """
activation string
batch string
dataset string
early_stopping string
input_activation string
kernel_regularizer string
kernel_regularizer.type string
optimizer string
output_activation string
shape string
task string
test_split_method string
batch_size uint32
epochs uint32
depth uint8
kernel_regularizer.l1 float
kernel_regularizer.l2 float
label_noise float
learning_rate float
test_split float
size uint64
"""
FLAGS = """
primary_sweep bool
300_epoch_sweep bool
30k_epoch_sweep bool
learning_rate_sweep bool
label_noise_sweep bool
batch_size_sweep bool
regularization_sweep bool
"""
RUN_COLUMNS = (
    """
experiment_id uint32
run_id string
"""
    + FLAGS
    + PARAMETERS
    + """
num_free_parameters uint64
python_version string
tensorflow_version string
platform string
git_hash string
hostname string
task_version uint16
widths list<element: uint32>
network_structure string
command string
seed int64
start_time int64
update_time int64
val_loss list<element: float>
loss list<element: float>
val_accuracy list<element: float>
accuracy list<element: float>
val_mean_squared_error list<element: float>
mean_squared_error list<element: float>
val_mean_absolute_error list<element: float>
mean_absolute_error list<element: float>
val_root_mean_squared_error list<element: float>
root_mean_squared_error list<element: float>
val_mean_squared_logarithmic_error list<element: float>
mean_squared_logarithmic_error list<element: float>
val_hinge list<element: float>
hinge list<element: float>
val_squared_hinge list<element: float>
squared_hinge list<element: float>
val_cosine_similarity list<element: float>
cosine_similarity list<element: float>
val_kullback_leibler_divergence list<element: float>
kullback_leibler_divergence list<element: float>
momentum float
optimizer_sweep bool
repetition uint16
torch_version string
engine string
device string
cpu_family string
stack uint16
core_seconds float
job_id string
end_reason string
environment string
"""
)
SUMMARY_COLUMNS = (
    """
experiment_id uint32
"""
    + FLAGS
    + PARAMETERS
    + """
num_free_parameters uint64
widths list<element: uint32>
network_structure string
num_runs uint8
num list<element: uint8>
test_loss_num_finite list<element: uint8>
test_loss_avg list<element: float>
test_loss_stddev list<element: float>
test_loss_min list<element: float>
test_loss_max list<element: float>
test_loss_median list<element: float>
train_loss_num_finite list<element: uint8>
train_loss_avg list<element: float>
train_loss_stddev list<element: float>
train_loss_min list<element: float>
train_loss_max list<element: float>
train_loss_median list<element: float>
test_accuracy_avg list<element: float>
test_accuracy_stddev list<element: float>
test_accuracy_median list<element: float>
train_accuracy_avg list<element: float>
train_accuracy_stddev list<element: float>
train_accuracy_median list<element: float>
test_mean_squared_error_avg list<element: float>
test_mean_squared_error_stddev list<element: float>
test_mean_squared_error_median list<element: float>
train_mean_squared_error_avg list<element: float>
train_mean_squared_error_stddev list<element: float>
train_mean_squared_error_median list<element: float>
test_kullback_leibler_divergence_avg list<element: float>
test_kullback_leibler_divergence_stddev list<element: float>
test_kullback_leibler_divergence_median list<element: float>
train_kullback_leibler_divergence_avg list<element: float>
train_kullback_leibler_divergence_stddev list<element: float>
train_kullback_leibler_divergence_median list<element: float>
momentum float
optimizer_sweep bool
test_loss_q1 list<element: float>
test_loss_q3 list<element: float>
train_loss_q1 list<element: float>
train_loss_q3 list<element: float>
test_accuracy_q1 list<element: float>
test_accuracy_q3 list<element: float>
train_accuracy_q1 list<element: float>
train_accuracy_q3 list<element: float>
test_mean_squared_error_q1 list<element: float>
test_mean_squared_error_q3 list<element: float>
train_mean_squared_error_q1 list<element: float>
train_mean_squared_error_q3 list<element: float>
test_kullback_leibler_divergence_q1 list<element: float>
test_kullback_leibler_divergence_q3 list<element: float>
train_kullback_leibler_divergence_q1 list<element: float>
train_kullback_leibler_divergence_q3 list<element: float>
"""
)
EXTREMA = (
    "test_loss_min",
    "test_accuracy_max",
    "test_mean_squared_error_min",
    "test_kullback_leibler_divergence_min",
)
KEYS = [
    "dataset",
    "shape",
    "learning_rate",
    "batch_size",
    "kernel_regularizer.type",
    "label_noise",
    "depth",
    "epochs",
]


def typed(text):
    return [tuple(line.split(" ", 1)) for line in text.split("\n") if line]


def spelled(schema):
    return [(field.name, str(field.type)) for field in schema]


def extremum_columns():
    for extremum in EXTREMA:
        for part in ("epoch", "value"):
            for statistic in ("min", "q1", "median", "q3", "max", "avg"):
                is_integer = part == "epoch" and statistic in ("min", "max")
                yield f"{extremum}_{part}_{statistic}", "uint32" if is_integer else "float"


def test_run_schema():
    assert spelled(BUTTER.runs) == typed(RUN_COLUMNS)


def test_summary_schema():
    assert spelled(BUTTER.summary) == [*typed(SUMMARY_COLUMNS), *extremum_columns()]


def test_keys_are_in_the_path_and_not_in_the_files():
    assert list(BUTTER.keys) == KEYS
    assert spelled(BUTTER.run_files) == [column for column in spelled(BUTTER.runs) if column[0] not in KEYS]
    assert spelled(BUTTER.summary_files) == [column for column in spelled(BUTTER.summary) if column[0] not in KEYS]
    assert set(KEYS) <= set(BUTTER.experiment_columns)


def test_files_have_the_schemas(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, range(3))
    (plan,) = plan_summaries(store).partitions
    summarize_partition(store, plan)
    (run_file,) = tmp_path.glob("store/all_runs/**/*-*.parquet")
    (summary_file,) = tmp_path.glob("store/complete_summary/**/summary.parquet")
    assert spelled(pq.read_schema(run_file)) == spelled(BUTTER.run_files)
    assert spelled(pq.read_schema(summary_file)) == spelled(BUTTER.summary_files)
    assert b"pandas" not in (pq.read_schema(run_file).metadata or {})
    for root, schema in (("all_runs", BUTTER.runs), (SUMMARY, BUTTER.summary)):
        common = pq.read_schema(tmp_path / "store" / root / "_common_metadata")
        assert spelled(common) == spelled(schema)
        assert isinstance(common, pa.Schema)
