"""ICC profiles: that of a color picture for the same in gray, and the other way round."""

from __future__ import annotations

import struct

_HEADER, _ENTRY = 128, 12
_RGB, _GRAY, _XYZ = b"RGB ", b"GRAY", b"XYZ "
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_GRAY_CURVE = b"kTRC"
_KEPT = (b"desc", b"cprt", b"wtpt", b"chad")
_SRGB_PRIMARIES = {
    b"rXYZ": (0x6FA2, 0x38F5, 0x0390),
    b"gXYZ": (0x6299, 0xB785, 0x18DA),
    b"bXYZ": (0x24A0, 0x0F84, 0xB6CF),
}
"""As s15Fixed16 numbers, adapted to the D50 of profiles."""
_MOST_TAGS = 100
_SRGB_NAME_WITHIN = 4096


def profile_for(profile: bytes, color: str) -> bytes:
    """The profile with the same curve of intensities for pictures of the other color mode; empty where the profile is
    none of one curve for all channels, as of a printer.

    Args:
        profile: of a picture in color, or in gray.
        color: "gray" or "color", what is wanted; in color the primaries are those of sRGB.
    """
    wanted, curve = (_GRAY, _CURVES) if color == "gray" else (_RGB, (_GRAY_CURVE,))
    tags = _tags(profile)
    curves = {tags.get(name, b"") for name in curve}
    if profile[20:24] != _XYZ or len(curves) != 1 or not all(curves) or b"wtpt" not in tags:
        return b""
    kept = {name: tags[name] for name in _KEPT if name in tags}
    made = dict.fromkeys((_GRAY_CURVE,) if color == "gray" else _CURVES, *curves)
    if color == "color":
        made |= {name: _XYZ + bytes(4) + struct.pack(">3I", *value) for name, value in _SRGB_PRIMARIES.items()}
    return _written(profile[:16] + wanted + profile[20:84] + bytes(44), kept | made)


def is_srgb(profile: bytes) -> bool:
    """Whether a profile calls itself one of sRGB, or there is none, which is taken for that."""
    about = profile[:_SRGB_NAME_WITHIN]
    return not profile or b"sRGB" in about or "sRGB".encode("utf-16-be") in about


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Content by name; none of what is no profile."""
    count = int.from_bytes(profile[_HEADER : _HEADER + 4], "big")
    found = {}
    for number in range(count if count <= _MOST_TAGS else 0):
        entry = profile[_HEADER + 4 + number * _ENTRY :][:_ENTRY]
        if len(entry) < _ENTRY:
            break
        name, start, size = struct.unpack(">4sII", entry)
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
