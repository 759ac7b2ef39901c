"""Render the domains ``printed`` and ``stroke``: ``python -m tlbench.data.embedded.render_digits --out DIR``.

The arrays that the package ships were made by this script. Rendering differs a little between versions of Pillow,
FreeType and the fonts, so a suite reads the arrays and never renders; ``versions.json`` says what made them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlbench.errors import DataError, TlbenchError, nearest
from tlbench.seeds import derive

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 28  # pixels of an image
FIT = 20  # longest side of a digit before it is turned and moved
TURN = 10.0  # degrees, either way
MOVE = 2  # pixels, either way
SHEAR = 0.25  # sideways pixels for each pixel upwards, either way; stroke only
CANVAS, STROKE_WIDTH, MARGIN = 256, 12, 64  # pixels; stroke only
FONT_SIZE = 256  # pixels; so large that hinting, which differs between FreeType versions, hardly shows at 20 pixels
PRINTED_COPIES, STROKE_COPIES = 5, 30  # images of each digit of each face

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Family:
    """Faces of one design: they never stand in two parts of a split."""

    name: str
    distribution: str  # as pip calls it
    folder: str  # of the font files, below the place where packages are installed
    faces: tuple[str, ...]  # file names without .ttf


_MATPLOTLIB = ("matplotlib", "matplotlib/mpl-data/fonts/ttf")

# Half of the faces come with matplotlib. Of the twelve faces of Roboto and of Source Serif Pro, seven each are
# taken: neighbouring weights and slants are nearly the same picture, and two families should not outweigh the rest.
FAMILIES: tuple[Family, ...] = (
    Family(
        "DejaVu Sans",
        *_MATPLOTLIB,
        ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique"),
    ),
    Family(
        "DejaVu Sans Mono",
        *_MATPLOTLIB,
        ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique"),
    ),
    Family(
        "DejaVu Serif",
        *_MATPLOTLIB,
        ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic"),
    ),
    Family(
        "STIXGeneral",
        *_MATPLOTLIB,
        ("STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic"),
    ),
    Family("Computer Modern Roman", *_MATPLOTLIB, ("cmb10", "cmr10", "cmti10")),
    Family("Computer Modern Sans", *_MATPLOTLIB, ("cmss10",)),
    Family("Computer Modern Typewriter", *_MATPLOTLIB, ("cmtt10",)),
    Family(
        "Roboto",
        "font-roboto",
        "font_roboto/files",
        (
            "Roboto-Black",
            "Roboto-Bold",
            "Roboto-BoldItalic",
            "Roboto-Italic",
            "Roboto-Light",
            "Roboto-Regular",
            "Roboto-Thin",
        ),
    ),
    Family(
        "Source Serif Pro",
        "font-source-serif-pro",
        "font_source_serif_pro/files",
        (
            "SourceSerifPro-Black",
            "SourceSerifPro-Bold",
            "SourceSerifPro-BoldIt",
            "SourceSerifPro-ExtraLight",
            "SourceSerifPro-It",
            "SourceSerifPro-Light",
            "SourceSerifPro-Regular",
        ),
    ),
    Family(
        "Caladea",
        "font-caladea",
        "font_caladea/files",
        ("Caladea-Bold", "Caladea-BoldItalic", "Caladea-Italic", "Caladea-Regular"),
    ),
    Family("Amatic SC", "font-amatic-sc", "font_amatic_sc/files", ("AmaticSC-Bold", "AmaticSC-Regular")),
    Family("Intuitive", "font-intuitive", "font_intuitive/files", ("Intuitive",)),
)

# The Hershey faces with digits of their own, by the skeleton that they draw with one or several pens.
HERSHEY: Mapping[str, str] = {
    "futural": "Hershey plain",
    "futuram": "Hershey plain",
    "gothgbt": "Hershey black letter",
    "rowmant": "Hershey roman",
    "scripts": "Hershey italic",
    "timesib": "Hershey italic",
    "timesr": "Hershey roman",
}


@dataclass(frozen=True, eq=False)
class Rendered:
    """The images of one domain.

    Attributes
    ----------
    images : uint8 array, shape (n, 28, 28)
        White digits on black.
    labels : uint8 array, shape (n,)
        The digits.
    face, family, name : str arrays, shape (n,)
        ``name`` is unique: ``"printed/Caladea-Bold/7/03"`` is the fourth copy of that face's 7.
    """

    images: Array
    labels: Array
    face: NDArray[np.str_]
    family: NDArray[np.str_]
    name: NDArray[np.str_]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by the names that they have in the file."""
        return {
            "images": self.images,
            "labels": self.labels,
            "face": self.face,
            "family": self.family,
            "name": self.name,
        }


def render_printed(faces: Iterable[str] | None = None) -> Rendered:
    """Render digits of outline fonts.

    Every digit of a face is drawn once, large; each copy is that drawing cropped, fitted into 20x20, centred in
    28x28, turned by up to 10 degrees and moved by up to 2 pixels. A copy's draws depend on its name alone.

    Parameters
    ----------
    faces : iterable of str, optional
        Names of faces to render, all 42 by default.

    Raises
    ------
    DataError
        If a font package is not installed, or lacks a face.
    ValueError
        If a face is not one of ours.
    """
    family_of = {face: family for family in FAMILIES for face in family.faces}
    rows: list[_Row] = []
    for face in _chosen(faces, family_of):
        family = family_of[face]
        glyphs = _glyphs(family, face)
        rows += _rows("printed", face, family.name, PRINTED_COPIES, partial(_glyph, glyphs))
    return _stacked(rows)


def render_stroke(faces: Iterable[str] | None = None) -> Rendered:
    """Render digits of the Hershey plotter faces, drawn by a round pen of 12 pixels on a canvas of 256.

    The skeleton is sheared by up to 0.25 before it is drawn; what follows is as in ``render_printed``.

    Parameters
    ----------
    faces : iterable of str, optional
        Names of faces to render, all 7 by default.

    Raises
    ------
    DataError
        If Hershey-Fonts is not installed.
    ValueError
        If a face is not one of ours.
    """
    rows: list[_Row] = []
    for face in _chosen(faces, HERSHEY):
        rows += _rows("stroke", face, HERSHEY[face], STROKE_COPIES, partial(_penned, _skeletons(face)))
    return _stacked(rows)


@dataclass(frozen=True, eq=False)
class _Row:
    image: Array
    label: int
    face: str
    family: str
    name: str


def _rows(
    domain: str, face: str, family: str, copies: int, drawn: Callable[[int, random.Random], Image]
) -> Iterator[_Row]:
    for digit in range(10):
        for copy in range(copies):
            name = f"{domain}/{face}/{digit}/{copy:02d}"
            # Python promises the sequence of random() for a seed on every version; NumPy does not for its generators.
            draws = random.Random(derive(name))
            yield _Row(_placed(drawn(digit, draws), draws), digit, face, family, name)


def _stacked(rows: Sequence[_Row]) -> Rendered:
    return Rendered(
        images=np.stack([row.image for row in rows]),
        labels=np.array([row.label for row in rows], dtype=np.uint8),
        face=np.array([row.face for row in rows]),
        family=np.array([row.family for row in rows]),
        name=np.array([row.name for row in rows]),
    )


def _chosen(faces: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    ours = list(known)
    chosen = ours if faces is None else list(faces)
    for face in chosen:
        if face not in ours:
            raise ValueError(f"expected the name of a face, got {face!r}{nearest(face, ours)}")
    return chosen


def _placed(drawing: Image, draws: random.Random) -> Array:
    """Crop, fit into 20x20, centre in 28x28, turn and move."""
    from PIL import Image as pillow

    ink = drawing.crop(drawing.getbbox())
    shrink = FIT / max(ink.size)
    width, height = (max(1, round(side * shrink)) for side in ink.size)
    small = ink.resize((width, height), pillow.Resampling.BILINEAR)
    page = pillow.new("L", (SIDE, SIDE), 0)
    page.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    turn = draws.uniform(-TURN, TURN)
    moves = (draws.randint(-MOVE, MOVE), draws.randint(-MOVE, MOVE))
    # A square of 20 turned by 10 degrees reaches 11.6 pixels from the centre, 13.6 when moved: nothing is cut off.
    return np.asarray(page.rotate(turn, pillow.Resampling.BILINEAR, translate=moves), dtype=np.uint8)


def _glyphs(family: Family, face: str) -> list[Image]:
    from PIL import Image as pillow
    from PIL import ImageDraw, ImageFont

    file = _installed(family.distribution, family.folder) / f"{face}.ttf"
    try:
        # The basic layout engine is part of every Pillow; the other one needs a library that may be missing.
        font = ImageFont.truetype(str(file), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        held = version(family.distribution)
        raise DataError(
            f"{family.distribution} {held}: expected a font file '{file.name}', got '{error}'; "
            f"install the version named in versions.json"
        ) from error
    glyphs = []
    for digit in range(10):
        page = pillow.new("L", (2 * FONT_SIZE, 2 * FONT_SIZE), 0)
        ImageDraw.Draw(page).text((FONT_SIZE // 2, FONT_SIZE // 2), str(digit), fill=255, font=font)
        glyphs.append(page)
    return glyphs


def _glyph(glyphs: Sequence[Image], digit: int, _draws: random.Random) -> Image:
    return glyphs[digit]


def _skeletons(face: str) -> list[list[NDArray[np.float64]]]:
    _installed("Hershey-Fonts", "HersheyFonts")
    from HersheyFonts import HersheyFonts

    fonts = HersheyFonts()
    fonts.load_default_font(face)
    return [[np.array(stroke, dtype=np.float64) for stroke in fonts.strokes_for_text(str(d))] for d in range(10)]


def _penned(skeletons: Sequence[Sequence[NDArray[np.float64]]], digit: int, draws: random.Random) -> Image:
    """Draw sheared strokes, scaled so that the longer side of the skeleton fills the canvas up to its margin."""
    from PIL import Image as pillow
    from PIL import ImageDraw

    shear = draws.uniform(-SHEAR, SHEAR)
    slanted = [points @ np.array([[1.0, 0.0], [-shear, 1.0]]) for points in skeletons[digit] if len(points)]
    every = np.concatenate(slanted)
    low, high = every.min(axis=0), every.max(axis=0)
    scale = (CANVAS - 2 * MARGIN) / (high - low).max()
    page = pillow.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(page)
    radius = STROKE_WIDTH / 2
    for points in slanted:
        path = [(float(x), float(y)) for x, y in (points - (low + high) / 2) * scale + CANVAS / 2]
        pen.line(path, fill=255, width=STROKE_WIDTH)
        for x, y in path:  # round ends and joints
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return page


def _installed(distribution: str, folder: str) -> Path:
    package, *below = folder.split("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"rendering digits: expected the package '{distribution}' to be installed, found none; "
            f"pip install {distribution}, or all that it takes: pip install 'tlbench[render]'"
        )
    return Path(spec.submodule_search_locations[0], *below)


def array_hashes(rendered: Rendered) -> dict[str, str]:
    """Return the SHA-256 hex digest of every array; strings are hashed as UTF-8 lines."""
    hashes = {}
    for key, array in rendered.arrays().items():
        content = array.tobytes() if array.dtype == np.uint8 else "\n".join(array.tolist()).encode("utf-8")
        hashes[key] = hashlib.sha256(content).hexdigest()
    return hashes


def versions() -> dict[str, str]:
    """Return the versions of everything that a pixel depends on."""
    from PIL import features

    distributions = sorted({family.distribution for family in FAMILIES} | {"numpy", "pillow", "Hershey-Fonts"})
    return {
        "python": platform.python_version(),
        "FreeType": str(features.version("freetype2")),
        **{distribution: version(distribution) for distribution in distributions},
    }


def write(out: Path) -> dict[str, Rendered]:
    """Render both domains and write ``printed.npz``, ``stroke.npz`` and ``versions.json`` into a folder."""
    domains = {"printed": render_printed(), "stroke": render_stroke()}
    out.mkdir(parents=True, exist_ok=True)
    for domain, rendered in domains.items():
        np.savez_compressed(out / f"{domain}.npz", allow_pickle=False, **rendered.arrays())
    account = {
        "versions": versions(),
        "sha256": {domain: array_hashes(rendered) for domain, rendered in domains.items()},
    }
    (out / "versions.json").write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
    return domains


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tlbench.data.embedded.render_digits", description="Render the domains printed and stroke."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write the arrays into")
    out = parser.parse_args(arguments).out
    try:
        domains = write(out)
    except TlbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for domain, rendered in domains.items():
        faces = len(np.unique(rendered.face))
        print(f"{out / domain}.npz: {len(rendered.images)} images of {faces} faces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
