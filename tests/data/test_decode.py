from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlbench.data.decode import decode
from tlbench.errors import DataError


def stored(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode(stored(Image.fromarray(grey)), "x"), np.repeat(grey[:, :, None], 3, axis=2))


def test_a_palette_becomes_its_colours() -> None:
    colours = Image.new("RGB", (4, 3), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode(stored(colours), "x"), np.broadcast_to([10, 200, 30], (3, 4, 3)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(mode: str) -> None:
    hidden = Image.new("RGBA", (2, 1), (9, 9, 9, 0))
    hidden.putpixel((1, 0), (9, 9, 9, 255))
    image = hidden.convert(mode)
    found = decode(stored(image), "x")
    np.testing.assert_array_equal(found, [[[255] * 3, [9] * 3]])


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    opaque = np.dstack([pixels, np.full((5, 6), 255, dtype=np.uint8)])
    np.testing.assert_array_equal(decode(stored(Image.fromarray(opaque)), "x"), pixels)


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    grey = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(decode(stored(Image.fromarray(grey)), "x")[0, :, 0], [0, 0, 1, 255])


def test_the_orientation_of_exif_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert decode(stored(Image.new("RGB", (8, 4)), "JPEG", exif=exif), "x").shape == (4, 8, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_file_that_was_cut_off_is_named(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = stored(Image.fromarray(pixels), kind)
    assert decode(whole, "x").shape == (64, 64, 3)
    file = tmp_path / "cut.img"
    file.write_bytes(whole[: len(whole) // 2])
    for source in (file, whole[: len(whole) // 2], b"", b"not an image", tmp_path / "none.png"):
        with pytest.raises(
            DataError, match=r"^pets/7: cannot be decoded as an image \(.*get this file again$"
        ) as error:
            decode(source, "pets/7")
        # Not a second time where, nor the object that the bytes are in.
        assert str(tmp_path) not in str(error.value)
        assert "BytesIO" not in str(error.value)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        decode(stored(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"), "x")
