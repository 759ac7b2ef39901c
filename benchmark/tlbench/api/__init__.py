"""What a user calls: each function a short composition of the floors below.

The engine and pandas are imported inside the functions that need them, so that reading a suite or
printing help costs nothing.
"""

from tlbench.api.analyzing import analyze
from tlbench.api.data import data_prepare, data_status, data_verify
from tlbench.api.given import RUN_DIR
from tlbench.api.measuring import evaluate, evaluate_grid, plan, score, status
from tlbench.api.publishing import SubmitResult, compact, submit, verify
from tlbench.api.reading import compare, leaderboard, load_predictions, load_results
from tlbench.api.reporting import report
from tlbench.api.result import EvaluationResult, GridRowResult

__all__ = [
    "RUN_DIR",
    "EvaluationResult",
    "GridRowResult",
    "SubmitResult",
    "analyze",
    "compact",
    "compare",
    "data_prepare",
    "data_status",
    "data_verify",
    "evaluate",
    "evaluate_grid",
    "leaderboard",
    "load_predictions",
    "load_results",
    "plan",
    "report",
    "score",
    "status",
    "submit",
    "verify",
]
