from .facts import (
    PLAN_COLUMNS as PLAN_COLUMNS,
)
from .facts import (
    activity_lines as activity_lines,
)
from .facts import (
    best_losses as best_losses,
)
from .facts import (
    cube_table as cube_table,
)
from .facts import (
    driver_line as driver_line,
)
from .facts import (
    failure_line as failure_line,
)
from .facts import (
    failure_lines as failure_lines,
)
from .facts import (
    plan_facts as plan_facts,
)
from .facts import (
    plan_lines as plan_lines,
)
from .facts import (
    plan_tables as plan_tables,
)
from .facts import (
    status_facts as status_facts,
)
from .facts import (
    status_lines as status_lines,
)
from .facts import (
    sweep_table as sweep_table,
)
from .facts import (
    train_facts as train_facts,
)
from .facts import (
    train_lines as train_lines,
)
from .page import page_data as page_data
from .page import write_page as write_page
from .plot import (
    learning_curves as learning_curves,
)
from .plot import (
    repetitions as repetitions,
)
from .plot import (
    save as save,
)
from .plot import (
    selected as selected,
)
from .plot import (
    size_depth_map as size_depth_map,
)
from .terminal import ProgressLine as ProgressLine
from .terminal import duration as duration
from .terminal import print_table as print_table
