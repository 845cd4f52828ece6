from .facts import (
    PLAN_COLUMNS as PLAN_COLUMNS,
    activity_lines as activity_lines,
    best_losses as best_losses,
    cube_table as cube_table,
    driver_line as driver_line,
    failure_line as failure_line,
    failure_lines as failure_lines,
    plan_facts as plan_facts,
    plan_lines as plan_lines,
    plan_tables as plan_tables,
    status_facts as status_facts,
    status_lines as status_lines,
    sweep_table as sweep_table,
    train_facts as train_facts,
    train_lines as train_lines,
)
from .page import page_data as page_data, write_page as write_page
from .plot import (
    learning_curves as learning_curves,
    repetitions as repetitions,
    save as save,
    selected as selected,
    size_depth_map as size_depth_map,
)
from .terminal import ProgressLine as ProgressLine, duration as duration, print_table as print_table
