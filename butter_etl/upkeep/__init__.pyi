from .drop import DropPlan as DropPlan, plan_drop as plan_drop, run_drop as run_drop
from .findings import CheckReport as CheckReport, Finding as Finding, KINDS as KINDS
from .inventory import Inventory as Inventory
from .repair import RepairReport as RepairReport, run_repair as run_repair
from .verify import is_store as is_store, plan_verification as plan_verification, run_verification as run_verification
