from .activity import Activity as Activity
from .activity import current_activity as current_activity
from .checkpoints import Checkpoints as Checkpoints
from .claims import Claims as Claims
from .cutting import Wanted as Wanted
from .cutting import begun_stacks as begun_stacks
from .cutting import target_task_seconds as target_task_seconds
from .driver import (
    Driver as Driver,
)
from .driver import (
    Progress as Progress,
)
from .driver import (
    TrainReport as TrainReport,
)
from .driver import (
    full_disk_stops as full_disk_stops,
)
from .heartbeats import Heartbeat as Heartbeat
from .heartbeats import RunningDriver as RunningDriver
from .share import Share as Share
from .tasks import Settings as Settings
from .tasks import discard_landed as discard_landed
