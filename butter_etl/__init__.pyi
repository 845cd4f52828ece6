from .clusters import start_cluster as start_cluster
from .partition import partition_runs as partition_runs
from .store import read_executive_summary as read_executive_summary
from .store import read_export as read_export
from .store import read_runs as read_runs
from .store import read_summary as read_summary
from .summarize import summarize_runs as summarize_runs
from .train_tasks import train as train

__version__: str
