from .clusters import start_cluster as start_cluster
from .partition import export as export
from .partition import import_runs as import_runs
from .partition import partition_runs as partition_runs
from .store import read_executive_summary as read_executive_summary
from .store import read_export as read_export
from .store import read_precision as read_precision
from .store import read_runs as read_runs
from .store import read_summary as read_summary
from .studies import Above as Above
from .studies import Axis as Axis
from .studies import Between as Between
from .studies import OneOf as OneOf
from .studies import Proposal as Proposal
from .studies import Resume as Resume
from .studies import Study as Study
from .studies import study_of as study_of
from .summarize import summarize_runs as summarize_runs
from .summarize import summarize_store as summarize_store
from .train_tasks import plan as plan
from .train_tasks import train as train
from .upkeep import audit as audit
from .upkeep import replay as replay
from .upkeep import verify_data as verify_data
from .views import compare as compare
from .views import draw_plot as draw_plot
from .views import read_curves as read_curves
from .views import status as status

__version__: str
plot = draw_plot
verify = verify_data
