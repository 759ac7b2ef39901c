"""What a fit must leave as it was, and whether two fits are alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from tlbench.models.backbone import Backbone
from tlbench.seeds import digest


def difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float | None:
    """Return the largest difference of two fits' outputs, or None where they are not alike in form."""
    if set(first) != set(second) or any(first[name].shape != second[name].shape for name in first):
        return None
    return max(float((first[name] - second[name]).nan_to_num().abs().max()) for name in first)


def fingerprint(backbone: Backbone) -> str:
    values = {name: tensor.double().sum().item() for name, tensor in backbone.state0.items()}
    squares = {name: tensor.double().square().sum().item() for name, tensor in backbone.state0.items()}
    return digest(values, squares)


def global_state() -> dict[str, str]:
    return {
        "torch's global generator": digest(torch.random.get_rng_state().tolist()),
        "NumPy's global generator": repr(np.random.get_state()),
        "Python's global generator": str(hash(random.getstate())),
        "the number of threads": str(torch.get_num_threads()),
        "the default dtype": str(torch.get_default_dtype()),
        "grad mode": str(torch.is_grad_enabled()),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
    }


@contextmanager
def other_global_randomness() -> Iterator[None]:
    """Give the global generators another state for the block: a fit must not notice."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(4321)
        random.seed(4321)
        np.random.seed(4321)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def place_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" (in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno} of {trace.tb_frame.f_code.co_filename})"
