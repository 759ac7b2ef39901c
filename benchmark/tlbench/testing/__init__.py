"""The promises that every plug-in keeps, for its author to run.

::

    from tlbench.testing import assert_method

    def test_my_method_keeps_its_promises():
        assert_method(MyMethod())
"""

from tlbench.testing.promises import Check, assert_method, check_method
from tlbench.testing.synthetic import (
    RECIPE,
    SIDE,
    SIZES,
    synthetic_context,
    synthetic_hierarchy,
    synthetic_split,
)

__all__ = [
    "RECIPE",
    "SIDE",
    "SIZES",
    "Check",
    "assert_method",
    "check_method",
    "synthetic_context",
    "synthetic_hierarchy",
    "synthetic_split",
]
