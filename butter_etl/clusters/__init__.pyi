from .probing import probe_workers as probe_workers
from .sites import load_site as load_site
from .sites import site_templates as site_templates
from .sites import tasks_at_once as tasks_at_once
from .start import start_cluster as start_cluster
from .worker import (
    DRAINING as DRAINING,
)
from .worker import (
    JOB_LOGS as JOB_LOGS,
)
from .worker import (
    at_work as at_work,
)
from .worker import (
    host_facts as host_facts,
)
from .worker import (
    is_closing as is_closing,
)
from .worker import (
    job_end as job_end,
)
from .worker import (
    leave_worker as leave_worker,
)
from .worker import (
    told_to_end as told_to_end,
)
