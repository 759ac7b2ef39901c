"""The whole exception tree of tlbench.

::

    TlbenchError                 a user's mistake: printed as one line, exit code 2
    ├── UsageError               an option, or a combination of options, that means nothing
    ├── UnknownNameError         a suite, model, backbone, metric, ... that nobody registered
    ├── SuiteError               a suite file, or a part of it, that cannot be used
    ├── DataError                images, labels or folders that are not what the suite says
    ├── WeightsError             pretrained weights that are not on this machine
    ├── PluginError              a plug-in file, card or entry point that cannot be loaded
    │   ├── DataAccessError      a method that reads what it did not declare
    │   └── NotApplicableError   a method or measure that cannot exist here, with its reason
    ├── StoreError               a run or results folder that cannot be read or written
    └── VerificationError        stored numbers that do not follow from stored predictions (exit code 4)
    FitError                     a fit that failed: becomes a record, the others go on (exit code 1)
    LeftOutWarning               a warning: published results that are damaged, and that a board does without

A caller's slip inside Python code is a plain ``ValueError``; nothing is swallowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TlbenchError(Exception):
    """A mistake of the user, told in one line: where, what was expected, what came, the way out."""

    exit_code = 2


class UsageError(TlbenchError):
    """An option, or a combination of options, that means nothing."""


class UnknownNameError(TlbenchError):
    """A name that nobody registered."""


class SuiteError(TlbenchError):
    """A suite file, or a part of it, that cannot be used."""


class DataError(TlbenchError):
    """Images, labels or folders that are not what the suite says."""


class WeightsError(TlbenchError):
    """Pretrained weights that are not on this machine."""


class PluginError(TlbenchError):
    """A plug-in file, card or entry point that cannot be loaded or used."""


class DataAccessError(PluginError):
    """A method that reads data which it did not declare, or labels that are out of its reach."""


class NotApplicableError(PluginError):
    """A method or a measure that cannot exist here; its message is the reason on the record."""


class StoreError(TlbenchError):
    """A run or results folder that cannot be read or written."""


class VerificationError(TlbenchError):
    """Stored numbers that do not follow from stored predictions."""

    exit_code = 4


class FitError(Exception):
    """A fit that failed; the engine turns it into a record with status ``failed`` and goes on."""


class LeftOutWarning(UserWarning):
    """Published results that cannot be read and are left out; the other ones are shown."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the choice nearest to ``name``, or an empty string.

    >>> nearest("sketchh", ["photo", "sketch"])
    "; did you mean 'sketch'?"
    >>> nearest("zzz", ["photo", "sketch"])
    ''
    """
    match = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean '{match[0]}'?" if match else ""


def listed(names: Iterable[str]) -> str:
    """Return names as a quoted, comma-separated list for a message.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    return ", ".join(f"'{name}'" for name in names)
