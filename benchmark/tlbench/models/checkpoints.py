"""Weight files of others, read without running any code that they may hold."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tlbench.errors import WeightsError

# Where training scripts put the weights within what they save, the averaged ones first.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file or of a PyTorch checkpoint, on the CPU.

    Parameters
    ----------
    path : Path
        A checkpoint may hold its weights under ``state_dict`` or ``model``, and its names may begin with ``module.``.

    Raises
    ------
    WeightsError
        If the file does not exist, cannot be read, needs code to be run, or holds no tensors by name.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected a file of weights, found none; check the path")
    try:
        if path.suffix == ".safetensors":
            stored: object = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is damaged, or holds more than tensors, and reading that could run code; "
            "save its state_dict as .safetensors"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise WeightsError(f"{path}: not a readable file of weights ({_first_line(error)})") from error
    return _tensors(stored, path)


def _tensors(stored: object, path: Path) -> dict[str, Tensor]:
    if isinstance(stored, Mapping):
        for key in _NESTED:
            if isinstance(stored.get(key), Mapping):
                stored = stored[key]
                break
    if not isinstance(stored, Mapping) or not any(isinstance(value, Tensor) for value in stored.values()):
        raise WeightsError(f"{path}: expected tensors by name (a state_dict), got {type(stored).__name__}")
    return {str(key).removeprefix("module."): value for key, value in stored.items() if isinstance(value, Tensor)}


def misfit(label: str, error: Exception) -> WeightsError:
    """Return the error for weights that belong to another architecture, in one line."""
    return WeightsError(f"{label}: the weights do not fit the architecture ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # PyTorch's first line only says that there are errors; the second names them.
    line = lines[1] if lines[0].startswith("Error(s) in loading") and len(lines) > 1 else lines[0]
    return line if len(line) <= 200 else line[:197] + "..."
