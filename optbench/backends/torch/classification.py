"""Classification in PyTorch: its loss, once as a function and once written out, and its prediction."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def cross_entropy(
    outputs: Tensor,
    targets: Tensor,
    *,
    reduction: Literal["mean", "sum", "none"],
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of outputs [n, classes] and labels [n], the target smoothed over all outputs."""
    return F.cross_entropy(outputs, targets, reduction=reduction, label_smoothing=label_smoothing)


def predicted_label(outputs: Tensor) -> Tensor:
    """Class of the largest output, [n]."""
    return outputs.argmax(1)


class WrittenOutCrossEntropy:
    """Mean cross-entropy of one batch size and its gradient, with the memory of everything between.

    The operations are those that autograd calls for :func:`cross_entropy`, in its order.
    """

    def __init__(self, like: Tensor, n: int, outputs: int, *, label_smoothing: float = 0.0) -> None:
        self._log_p, self._of_log_p, self._of_outputs = (like.new_empty((n, outputs)) for _ in range(3))
        self._total = like.new_empty(())
        self._hit, self._rest = like.new_full((), 1 - label_smoothing), label_smoothing / outputs

    def run(self, outputs: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
        """Write the loss into ``loss`` and give the gradient of the outputs."""
        log_p, g = self._log_p, self._of_log_p
        torch._log_softmax(outputs, 1, False, out=log_p)
        aten.nll_loss_forward.output(log_p, labels, None, 1, -100, output=loss, total_weight=self._total)
        aten.nll_loss_backward.grad_input(self._hit, log_p, labels, None, 1, -100, self._total, grad_input=g)
        if self._rest:
            loss.mul_(self._hit).add_(log_p.sum(1).mean(), alpha=-self._rest)
            g.sub_(self._rest / len(labels))
        gradient: Tensor = aten._log_softmax_backward_data.out(
            g, log_p, 1, outputs.dtype, out=self._of_outputs
        )
        return gradient
