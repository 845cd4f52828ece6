"""What many tests make: run rows of real specs and schemas with drawn histories, and claims of another driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.engines.contract import HISTORIES
from butter_etl.store.fingerprints import fingerprints_metadata
from butter_etl.store.layout import partition_path
from butter_etl.store.parquet import parquet_bytes
from butter_etl.studies.butter.experiments import TASK, TASK_VERSION
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import experiment_topology, make_experiment
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import claim_ids, open_campaign, plan_campaign

POLLEN = make_experiment(dataset="529_pollen", size=32, depth=2)
DIGITS = make_experiment(dataset="digits", size=4096, depth=3, epochs=7)


def make_runs(spec, experiment_id, repetitions, epochs=7, histories=None, batch="primary"):
    """Rows of the run frame; ``histories`` maps (name, repetition) to a list, else noise keyed by both."""
    topology = experiment_topology(spec)
    rows = []
    for repetition in repetitions:
        run = RunSpec(spec, repetition)
        row = {
            "experiment_id": experiment_id,
            "run_id": run.run_id,
            **BUTTER.flags_of(spec),
            **spec.parameters(),
            "batch": batch,
            "task": TASK,
            "task_version": TASK_VERSION,
            "num_free_parameters": topology.num_free_parameters,
            "widths": list(topology.widths),
            "network_structure": "{}",
            "command": run.command(batch),
            "seed": run.seed,
            "start_time": 1,
            "update_time": 2,
            "repetition": repetition,
            "end_reason": "completed",
        }
        for number, name in enumerate(HISTORIES):
            default = np.random.default_rng([repetition, number]).random(epochs).astype(np.float32)
            row[name] = (histories or {}).get((name, repetition), default)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=BUTTER.run_files)


def land(store, spec, experiment_id, repetitions, **kwargs):
    """Land made-up runs of an experiment."""
    rows = make_runs(spec, experiment_id, repetitions, **kwargs)
    return store.land(partition_path(BUTTER.keys, spec.parameters()), experiment_id, rows)


@contextmanager
def held_back(store: Path, spec: Path, experiments: int = 1) -> Iterator[Callable[[], None]]:
    """Claim some of a sweep's experiments, as another driver would: no campaign of it ends within the block.

    So a test need not be faster than the campaign that it looks at, or disturbs. The store is made if there is none.
    Yields a function that gives one of them back.
    """
    campaign = plan_campaign(store, Choice(specs=(str(spec),)))
    opened, _ = open_campaign(campaign, store.parent)
    wanted = claim_ids(campaign.plan, campaign.registry, opened)
    with Claims(opened.state) as claims:
        buckets = {bucket_of(one.experiment_id) for one in wanted[:experiments]}
        assert all(claims.take(bucket) for bucket in buckets)
        yield lambda: claims.release(buckets.pop())


def write_summary(location, name, table, fingerprints):
    """A file as summaries are written: eight experiments a row group, and what they were made from in the footer."""
    data = parquet_bytes(table, metadata=fingerprints_metadata(fingerprints), row_group_size=8)
    location.replace(name, data)
