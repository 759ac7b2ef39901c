"""Minimum-norm attacks: one search for the nearest image that breaks a prediction answers every epsilon at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tlbench.conditions.attacks.attack import SetAttack, right, unit_range
from tlbench.conditions.base import image_seed
from tlbench.setting import Setting

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured, Observed
    from tlbench.data.domain import Batch


class MinimumNormAttack(SetAttack):
    """An attack that knows no epsilon: it looks for the nearest image that the predictor gets wrong.

    An image is broken at an epsilon if what was found for it lies within, so no verdict implies another: the mode
    of the ladder changes nothing, and there is nothing to audit.
    """

    @abstractmethod
    def distance(
        self,
        predictor: Measured,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        enough: Tensor | None = None,
    ) -> Tensor:
        """Return how far the nearest image lies that was found to break each prediction.

        Parameters
        ----------
        predictor : Measured
        images : float tensor, shape (n, 3, h, w)
            In [0, 1]; the predictor is right on each of them.
        labels : int64 tensor, shape (n,)
        seeds : sequence of int, length n
            Of each image's own random stream.
        enough : float tensor, shape (n,), optional
            The search for an image may end once something lies within this distance; by default it runs to its end.

        Returns
        -------
        float tensor, shape (n,)
            In the attack's norm; infinite where nothing was found, and 0 where that is unknown, because the search
            had nowhere to start.
        """

    def broken(
        self, predictor: Measured, images: Tensor, labels: Tensor, epsilons: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Return whether each image was broken within its own epsilon, bool (n,); see `distance`."""
        epsilons = epsilons.to(images.dtype)
        return self.distance(predictor, images, labels, seeds, epsilons) <= epsilons

    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield, for every image and epsilon, whether it was right when clean and whether it survived."""
        self.notes.clear()
        predictor.start(self.settings[0])
        right_when_clean = unknown = 0
        for batch in batches():
            correct = right(predictor.outputs(batch.images), batch.labels, self.name)
            attacked = correct.nonzero()[:, 0]
            verdicts = torch.zeros_like(batch.labels)
            unattacked = torch.zeros_like(correct)
            if len(attacked):
                images = unit_range(batch.images[attacked])
                radii = torch.tensor(self.epsilons, dtype=images.dtype, device=images.device)
                found = self.distance(
                    predictor,
                    images,
                    batch.labels[attacked],
                    self.seeds(batch, attacked.tolist()),
                    radii[0].expand(len(images)),
                )
                verdicts[attacked] = torch.searchsorted(radii, found)
                unattacked[attacked] = found == 0
                right_when_clean += len(found)
                unknown += int(unattacked.sum())
            for row in self.rows(batch, correct, verdicts):
                yield replace(row, unattacked=unattacked)
        if unknown:
            self.notes.append(
                f"{self.name}: no start was found for {unknown} of the {right_when_clean} images that are right when "
                "clean; they are counted as broken at every epsilon"
            )

    def seeds(self, batch: Batch, rows: Sequence[int]) -> list[int]:
        """Return the seeds of some images of a batch; one run serves every epsilon, so no epsilon stands in them."""
        setting = Setting(self.name, norm=self.norm)
        return [image_seed(batch.scope, batch.names[row], setting) for row in rows]
