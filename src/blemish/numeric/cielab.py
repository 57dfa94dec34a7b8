"""Colours as people see them: CIELAB of sRGB under D65, and the colour difference ΔE2000.

CIE 15:2004, "Colorimetry"; Sharma, Wu, Dalal, "The CIEDE2000 Color-Difference Formula: Implementation Notes,
Supplementary Test Data, and Mathematical Observations", Color Research and Application 30 (2005). numpy alone.
"""

from __future__ import annotations

import numpy as np

_WHITE = np.array([0.95047, 1.0, 1.08883])  # XYZ of D65, 2° observer
_TO_XYZ = np.array(  # linear sRGB → XYZ, IEC 61966-2-1
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_LEVELS = np.arange(256) / 255
_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)  # (256,)
_MIXED = (_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)  # (3, 3)
_KNEE = (6 / 29) ** 3


def lab_of(image: np.ndarray) -> np.ndarray:
    """L*, a*, b* `(…, 3)` float32 of sRGB levels `(…, 3)` uint8; L* in [0, 100], a* and b* about [−128, 127]."""
    xyz = _LINEAR.take(image) @ _MIXED  # (…, 3), 1 for white
    f = np.where(xyz > _KNEE, np.cbrt(xyz), xyz * np.float32((29 / 6) ** 2 / 3) + np.float32(4 / 29))
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e_2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """ΔE2000 `(…)` between colours `(…, 3)` in CIELAB; about 1 is just noticeable side by side."""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(lab, np.float64), -1, 0) for lab in (one, other))
    mean7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - np.sqrt(mean7 / (mean7 + 25.0**7)))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)  # chroma
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))  # hue in degrees
    is_grey = c1 * c2 == 0
    turn = np.where(is_grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    turn = np.where((turn == -180) & (h2 > h1), 180.0, turn)  # exactly opposite hues: the sign of h2 − h1
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    apart = np.abs(h1 - h2) > 180
    hue = np.where(is_grey, h1 + h2, (h1 + h2 + np.where(apart, np.where(h1 + h2 < 360, 360, -360), 0)) / 2)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    chroma7 = chroma**7
    rotation = -2 * np.sqrt(chroma7 / (chroma7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    d_l, d_c, d_h = (l2 - l1) / s_l, (c2 - c1) / s_c, d_hue / s_h
    found: np.ndarray = np.sqrt(np.maximum(0, d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h))
    return found
