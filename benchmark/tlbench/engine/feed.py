"""Batches on the device where they are measured: on a GPU the next ones are made and copied while it computes.

On a CPU nothing is to be copied, and a second thread would only take the cores from the network: there the batches come
as they are, without one. CUDA graphs and compiled networks are left out until somebody has measured that they pay.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor

from tlbench.conditions.base import Drawn, ImageCondition, Observed

if TYPE_CHECKING:
    from tlbench.conditions.base import Condition, Measured
    from tlbench.data.domain import Batch
    from tlbench.setting import Setting

_Item = TypeVar("_Item")
AHEAD: Final = 2
"""Batches that wait on the device for the one that is measured."""


def ahead(items: Iterable[_Item], depth: int = AHEAD) -> Generator[_Item, None, None]:
    """Yield items in their order, while a thread makes the next ones.

    Parameters
    ----------
    items : iterable
        Asked in a thread of its own. What it raises is raised here, after what came before it.
    depth : int
        Most items that wait. Where the caller stops early, the thread ends with the item at hand.
    """
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                waiting.put((True, item))
                if stopped.is_set():
                    return
        except BaseException as error:
            waiting.put((False, error))
        else:
            waiting.put((False, None))

    thread = threading.Thread(target=make, name="tlbench-feed", daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        # Room for the one thing that it may still hand over: after that it looks whether it is to stop.
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        thread.join()


class Crossing:
    """The way from the host to a device, beside what the device computes; to a CPU there is none to go.

    Copies run on a stream of their own, from pinned memory. Who receives makes its own stream wait for them, which
    costs the CPU nothing, and tells the allocator that the memory is in use there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def sent(self, batch: Batch) -> Batch:
        """Return a batch whose images and labels are on their way; its ids stay."""
        if self._stream is None:
            return batch
        with torch.cuda.stream(self._stream):
            images, labels = (self._copied(tensor) for tensor in (batch.images, batch.labels))
        return replace(batch, images=images, labels=labels)

    def drawn(self, condition: ImageCondition, batch: Batch, setting: Setting) -> Drawn:
        """Return the host's part of a condition, its tensors on their way."""
        drawn = condition.drawn(batch, setting, self.device)
        if self._stream is None:
            return drawn
        with torch.cuda.stream(self._stream):
            return drawn.on(self.device)

    def mark(self) -> torch.cuda.Event | None:
        """Return what tells that everything sent so far has arrived."""
        return None if self._stream is None else self._stream.record_event()

    def receive(self, arrived: torch.cuda.Event | None, tensors: Iterable[Tensor]) -> None:
        """Let what is computed from now on wait for what was sent."""
        if arrived is None:
            return
        here = torch.cuda.current_stream(self.device)
        here.wait_event(arrived)
        for tensor in tensors:
            if tensor.device.type == "cuda":
                tensor.record_stream(here)

    def _copied(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.device, non_blocking=True)


def fed(batches: Iterable[Batch], crossing: Crossing) -> Iterator[Batch]:
    """Yield batches whose images and labels are on a device, the next ones copied ahead."""

    def items() -> Iterator[tuple[Batch, torch.cuda.Event | None]]:
        for batch in batches:
            yield crossing.sent(batch), crossing.mark()

    with contextlib.closing(ahead(items())) as waiting:
        for batch, arrived in waiting:
            crossing.receive(arrived, (batch.images, batch.labels))
            yield batch


def observed_ahead(
    condition: ImageCondition, predictor: Measured, batches: Callable[[], Iterator[Batch]], crossing: Crossing
) -> Iterator[Observed]:
    """Yield what ``ImageCondition.observe`` yields, the host's part of the next settings and batches worked out ahead.

    Parameters
    ----------
    condition : ImageCondition
    predictor : Measured
    batches : callable
        Gives the same batches, on the host, whenever it is called.
    crossing : Crossing
    """
    rounds = [(setting,) for setting in condition.settings] if predictor.batch_dependent else [condition.settings]
    for settings in rounds:
        predictor.start(settings[0])
        with contextlib.closing(ahead(_drawn_for(condition, settings, batches(), crossing))) as waiting:
            for batch, setting, drawn, arrived in waiting:
                crossing.receive(arrived, (batch.images, batch.labels, *drawn.tensors))
                images = condition.applied(batch.images, drawn, setting)
                yield Observed(setting, batch.ids, batch.labels, predictor.outputs(images))


def _drawn_for(
    condition: ImageCondition, settings: Iterable[Setting], batches: Iterable[Batch], crossing: Crossing
) -> Iterator[tuple[Batch, Setting, Drawn, torch.cuda.Event | None]]:
    for batch in batches:
        sent = crossing.sent(batch)
        for setting in settings:
            drawn = crossing.drawn(condition, batch, setting)
            yield sent, setting, drawn, crossing.mark()


def observe(
    condition: Condition, predictor: Measured, batches: Callable[[], Iterator[Batch]], device: torch.device
) -> Iterator[Observed]:
    """Yield what a condition observes of a predictor on a device; see ``Condition.observe``.

    Parameters
    ----------
    condition : Condition
    predictor : Measured
    batches : callable
        Gives the same batches, on the host, whenever it is called.
    device : torch.device
        Where the predictor is, and where the condition is to do its work.
    """
    if device.type != "cuda":
        return condition.observe(predictor, batches)
    crossing = Crossing(device)
    if isinstance(condition, ImageCondition):
        return observed_ahead(condition, predictor, batches, crossing)
    return condition.observe(predictor, lambda: fed(batches(), crossing))
