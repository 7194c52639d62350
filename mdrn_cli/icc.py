"""ICC profiles: that of a color picture for the same in gray, and the other way round."""

from __future__ import annotations

import math
import struct
from hashlib import sha256

_HEADER, _ENTRY = 128, 12
_RGB, _GRAY, _XYZ = b"RGB ", b"GRAY", b"XYZ "
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_GRAY_CURVE = b"kTRC"
_TABLES = tuple(f"{kind}{intent}".encode() for kind in ("A2B", "D2B") for intent in range(4))
"""Tags of tables, which take precedence over curves in a profile that has them."""
_KEPT = (b"desc", b"cprt", b"wtpt", b"chad")
_SRGB_PRIMARIES = {
    b"rXYZ": (0x6FA2, 0x38F5, 0x0390),
    b"gXYZ": (0x6299, 0xB785, 0x18DA),
    b"bXYZ": (0x24A0, 0x0F84, 0xB6CF),
}
"""As s15Fixed16 numbers, adapted to the D50 of profiles."""
_PRIMARIES = tuple(_SRGB_PRIMARIES)
_PRIMARY_TOLERANCE, _XYZ_LENGTH = 330, 20
_SRGB_MIDDLE, _MIDDLE_TOLERANCE = 0.214, 0.012
"""What the curve of sRGB makes of 0.5, and a tolerance that also admits a gamma of 2.2, as screens have it."""
_MEANING = (b"wtpt", *_PRIMARIES, *_CURVES, _GRAY_CURVE, *_TABLES)
_MOST_TAGS, _LARGEST_TAG = 100, 1 << 20


def profile_for(profile: bytes, color: str) -> bytes:
    """A profile with the same curve of intensities for pictures of the other color mode; empty where the profile has no
    single curve for all channels, as of a printer, or has tables that take precedence.

    Args:
        profile: of a picture in color, or in gray.
        color: "gray" or "color", what is wanted; in color the primaries are those of sRGB.
    """
    wanted, curve = (_GRAY, _CURVES) if color == "gray" else (_RGB, (_GRAY_CURVE,))
    tags = _tags(profile)
    curves = {tags.get(name, b"") for name in curve}
    is_of_curve = len(curves) == 1 and all(curves) and not tags.keys() & set(_TABLES)
    if profile[20:24] != _XYZ or not is_of_curve or b"wtpt" not in tags:
        return b""
    kept = {name: tags[name] for name in _KEPT if name in tags}
    made = dict.fromkeys((_GRAY_CURVE,) if color == "gray" else _CURVES, *curves)
    if color == "color":
        made |= {name: _XYZ + bytes(4) + struct.pack(">3I", *value) for name, value in _SRGB_PRIMARIES.items()}
    return _written(profile[:16] + wanted + profile[20:84] + bytes(44), kept | made)


def colors_told(profile: bytes) -> tuple[object, ...]:
    """What a profile tells of colors, other than those of sRGB, and without its name, date and the like: equal for
    profiles that mean the same. Empty without a profile, too, which is taken for sRGB."""
    tags = _tags(profile)
    if not profile or _is_srgb(tags):
        return ()
    meaning = tuple((name, tags[name]) for name in _MEANING if name in tags)
    return meaning if {*_PRIMARIES, *_CURVES} <= tags.keys() or _GRAY_CURVE in tags else (profile,)


def _is_srgb(tags: dict[bytes, bytes]) -> bool:
    """Whether primaries and the middle of the curves are about those of sRGB, and nothing else counts."""
    near = not tags.keys() & set(_TABLES) and all(
        len(tags.get(name, b"")) == _XYZ_LENGTH
        and all(
            abs(one - other) <= _PRIMARY_TOLERANCE
            for one, other in zip(struct.unpack_from(">3i", tags[name], 8), value, strict=True)
        )
        for name, value in _SRGB_PRIMARIES.items()
    )
    return near and all(abs(_middle_of(tags.get(name, b"")) - _SRGB_MIDDLE) <= _MIDDLE_TOLERANCE for name in _CURVES)


def _middle_of(curve: bytes) -> float:
    """What half of the largest value stands for by a curve, of 1; NaN of a curve of a kind that is not known."""
    kind, values = curve[:4], curve[12:]
    if kind == b"curv" and len(curve) >= 12:
        count = int.from_bytes(curve[8:12], "big")
        if count == 0:
            return 0.5
        if len(values) >= 2 * count:
            middle = int.from_bytes(values[count // 2 * 2 :][:2], "big")
            return 0.5 ** (middle / 256) if count == 1 else middle / 65535
    if kind == b"para" and len(values) >= 4:
        numbers = [value / 65536 for value in struct.unpack(f">{len(values) // 4}i", values[: len(values) // 4 * 4])]
        gamma, scale, offset = (*numbers, 1.0, 0.0)[:3] if len(numbers) < 3 else numbers[:3]
        return float(max(scale * 0.5 + offset, 0.0) ** gamma) if 0 < gamma < 10 and abs(scale) < 10 else math.nan
    return math.nan


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Content by name of the tags that are used here, of tables its digest; none of what is no profile."""
    count = int.from_bytes(profile[_HEADER : _HEADER + 4], "big")
    found = {}
    for number in range(count if count <= _MOST_TAGS else 0):
        entry = profile[_HEADER + 4 + number * _ENTRY :][:_ENTRY]
        if len(entry) < _ENTRY:
            break
        name, start, size = struct.unpack(">4sII", entry)
        if name in _TABLES:  # which may be large, and are only compared
            found[name] = sha256(memoryview(profile)[start : start + size]).digest()
        elif size <= _LARGEST_TAG and name in (*_KEPT, *_MEANING):
            found[name] = profile[start : start + size]
    return found


def _written(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile: its table, and contents on multiples of four bytes, each once."""
    table, body, places = struct.pack(">I", len(tags)), b"", dict[bytes, int]()
    begin = _HEADER + 4 + _ENTRY * len(tags)
    for name, content in tags.items():
        if content not in places:
            places[content] = begin + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, places[content], len(content))
    whole = header + table + body
    return len(whole).to_bytes(4, "big") + whole[4:]
