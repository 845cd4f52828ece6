from .probing import probe_workers as probe_workers
from .sites import load_site as load_site, site_templates as site_templates, tasks_at_once as tasks_at_once
from .start import start_cluster as start_cluster
from .worker import (
    DRAINING as DRAINING,
    JOB_LOGS as JOB_LOGS,
    at_work as at_work,
    host_facts as host_facts,
    is_closing as is_closing,
    job_end as job_end,
    leave_worker as leave_worker,
    told_to_end as told_to_end,
)
