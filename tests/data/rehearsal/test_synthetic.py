"""Made-up images: a function of what they show, and of nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tlbench.data.rehearsal.synthetic import Motif, Painter, stored


def test_equal_motifs_give_equal_pixels_whatever_was_drawn_before() -> None:
    used = Painter("pets")
    used.pixels(Motif(1, "home", "b"), 64)
    assert np.array_equal(used.pixels(Motif(0, "home", "a"), 64), Painter("pets").pixels(Motif(0, "home", "a"), 64))


@pytest.mark.parametrize("other", [Motif(1, "home", "a"), Motif(0, "wild", "a"), Motif(0, "home", "b")])
def test_class_domain_and_name_each_change_the_image(other: Motif) -> None:
    painter = Painter("pets")
    assert not np.array_equal(painter.pixels(other, 32), painter.pixels(Motif(0, "home", "a"), 32))


def test_tasks_share_no_image() -> None:
    motif = Motif(0, "home", "a")
    assert not np.array_equal(Painter("pets").pixels(motif, 32), Painter("cars").pixels(motif, 32))


def test_an_image_of_any_multiple_of_the_cells_is_the_same_image() -> None:
    painter, motif = Painter("pets"), Motif(0, "home", "a")
    assert np.array_equal(painter.pixels(motif, 96)[::6, ::6], painter.pixels(motif, 64)[::4, ::4])
    with pytest.raises(ValueError, match="multiple of 16"):
        painter.pixels(motif, 60)


def test_files_are_of_the_format_and_mode_asked_for() -> None:
    pixels = Painter("pets").pixels(Motif(0, "home", "a"), 64)
    with Image.open(io.BytesIO(stored(pixels, "PNG"))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels)
    with Image.open(io.BytesIO(stored(pixels, "JPEG", grey=True))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (64, 64))
