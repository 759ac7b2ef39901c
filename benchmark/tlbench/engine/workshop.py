"""What the fits of one command share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlbench.engine.features import RecentFeatures

if TYPE_CHECKING:
    from tlbench.data.prepare import SuiteData
    from tlbench.engine.progress import Reporter
    from tlbench.methods.resolve import Model
    from tlbench.models.backbone import Backbone
    from tlbench.records.store import ModelStore, Store
    from tlbench.suites.spec import Suite


@dataclass
class Workshop:
    """Everything that the fits of one command share.

    Attributes
    ----------
    batch_size : int
        Images that a condition handles at a time, and the batch of a predictor that depends on its batch.
    failures : list of str
        One line a failure, in the order in which they happened.
    features : RecentFeatures
        Pooled features, shared by all fits of the process.
    data_notes : mapping of str to str
        What is known of a task's data beyond their hash, for the rows of its fits.
    making : list of str
        Ids of the fits at hand: one, and those that it asked for within each other.
    """

    suite: Suite
    data: SuiteData
    model: Model
    backbone: Backbone
    store: Store
    models: ModelStore
    device: str
    batch_size: int
    reporter: Reporter
    failures: list[str] = field(default_factory=list)
    features: RecentFeatures = field(default_factory=RecentFeatures)
    making: list[str] = field(default_factory=list)
    data_notes: Mapping[str, str] = field(default_factory=dict)
