"""What a fit returns, brought to one form: for the engine, for methods that wrap others, for their authors' tests."""

from __future__ import annotations

from torch import Tensor, nn

from tlbench.errors import PluginError
from tlbench.methods.base import Fitted, Predictor


def as_fitted(result: object, method: str = "the method") -> Fitted:
    """Return a fit's result as ``Fitted``: a bare module or predictor is its only variant.

    Raises
    ------
    PluginError
        If it is something else.
    """
    if isinstance(result, Fitted):
        return result
    if isinstance(result, Predictor):
        return Fitted({"main": result})
    if isinstance(result, nn.Module):
        return Fitted({"main": Predictor(result)})
    forgot = "; does fit() end with a return?" if result is None else ""
    raise PluginError(
        f"{method}.fit must return a torch module, a Predictor or a Fitted, it returned {type(result).__name__}{forgot}"
    )


def state_of(fitted: Fitted) -> dict[str, Tensor]:
    """Return all tensors that ``Method.build`` needs, on the CPU.

    Raises
    ------
    PluginError
        If several variants leave open which state is theirs.
    """
    if fitted.state is not None:
        state = fitted.state
    elif len(fitted.variants) == 1:
        state = fitted.predictor().module.state_dict()
    else:
        names = ", ".join(fitted.variants)
        raise PluginError(
            f"a fit of several variants ({names}) must give Fitted(state=...), from which build makes them"
        )
    return {name: tensor.detach().cpu() for name, tensor in state.items()}
