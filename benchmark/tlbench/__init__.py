"""tlbench: transfer learning under distribution shift, measured and compared.

The public names are loaded on use, so that ``import tlbench`` stays light: no torch, pandas, scipy or pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "Fitted",
    "Hooks",
    "Method",
    "PostHoc",
    "Predictor",
    "TlbenchError",
    "__version__",
    "analyze",
    "compare",
    "evaluate",
    "leaderboard",
    "load_predictions",
    "load_results",
    "load_suite",
]

if TYPE_CHECKING:
    from tlbench.api import analyze, compare, evaluate, leaderboard, load_predictions, load_results
    from tlbench.errors import TlbenchError
    from tlbench.methods.base import Fitted, Hooks, Method, Predictor
    from tlbench.methods.cost import Cost
    from tlbench.methods.posthoc import PostHoc
    from tlbench.suites.load import load_suite
else:
    # Hidden from the type checker, which would otherwise accept any misspelt name.
    _HOMES = {
        "Cost": "tlbench.methods.cost",
        "Fitted": "tlbench.methods.base",
        "Hooks": "tlbench.methods.base",
        "Method": "tlbench.methods.base",
        "PostHoc": "tlbench.methods.posthoc",
        "Predictor": "tlbench.methods.base",
        "TlbenchError": "tlbench.errors",
        "analyze": "tlbench.api",
        "compare": "tlbench.api",
        "evaluate": "tlbench.api",
        "load_predictions": "tlbench.api",
        "load_results": "tlbench.api",
        "load_suite": "tlbench.suites.load",
    }

    def __getattr__(name):
        if name == "leaderboard":
            return importlib.import_module("tlbench.leaderboard")  # a package that is called: see there
        if name not in _HOMES:
            raise AttributeError(f"module 'tlbench' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
