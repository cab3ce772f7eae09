"""The characters of each script: one class per character, in the order of the code points.

Every DejaVu face that `glyph_renderer` draws with has every character listed here. Letters with accents,
final forms and ligatures are left out.
"""

from __future__ import annotations

import string
from typing import Literal

Script = Literal["latin", "greek", "cyrillic", "armenian"]


def _between(first: str, last: str) -> str:
    return "".join(chr(code) for code in range(ord(first), ord(last) + 1))


CHARACTERS: dict[str, str] = {
    "latin": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "greek": _between("Α", "Ρ") + _between("Σ", "Ω") + _between("α", "ρ") + _between("σ", "ω"),
    "cyrillic": _between("А", "Я") + _between("а", "я"),
    "armenian": _between("Ա", "Ֆ") + _between("ա", "ֆ"),
}
