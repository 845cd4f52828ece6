from .activity import Activity as Activity, current_activity as current_activity
from .checkpoints import Checkpoints as Checkpoints
from .claims import Claims as Claims
from .cutting import Wanted as Wanted, begun_stacks as begun_stacks, target_task_seconds as target_task_seconds
from .driver import (
    Driver as Driver,
    Progress as Progress,
    TrainReport as TrainReport,
    full_disk_stops as full_disk_stops,
)
from .heartbeats import Heartbeat as Heartbeat, RunningDriver as RunningDriver
from .share import Share as Share
from .tasks import Settings as Settings, discard_landed as discard_landed
