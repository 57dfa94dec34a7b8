"""Machined and moulded parts: washer, bolt, gear, bracket, cap. Each function draws one part of its class."""

from __future__ import annotations

import math

import numpy as np

from blemish.research.synthetic_scans.fields import Noise, box, edge_drop, smoothstep, star
from blemish.research.synthetic_scans.surface import Part, Surface, blended, jittered, painted, surface

STEEL, ZINC, BRASS, BLACK = (0.66, 0.67, 0.69), (0.73, 0.75, 0.78), (0.76, 0.62, 0.34), (0.27, 0.27, 0.29)
YELLOW_ZINC = (0.78, 0.69, 0.45)


def washer(rng: np.random.Generator) -> Part:
    """A flat ring of turned metal with rounded edges."""
    radius = rng.uniform(31, 42)
    bore, thick, edge = radius * rng.uniform(0.38, 0.55), rng.uniform(4.0, 6.5), rng.uniform(0.8, 1.6)
    base, gloss = jittered(rng, (STEEL, ZINC, YELLOW_ZINC)), rng.uniform(0.45, 0.8)
    turned, mottled = Noise(rng, 0.9), Noise(rng, 14)
    lag = rng.uniform(0, 40)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        away = np.hypot(x, y)
        out = np.maximum(away - radius, bore - away)
        rings = turned(away + lag, 0.06 * np.arctan2(y, x) * away)
        colour = painted(base, 1 + 0.055 * rings + 0.03 * mottled(x, y))
        return surface(thick - edge_drop(out, edge), out < 0, colour, gloss * (1 + 0.12 * rings))

    return surface_at


def bolt(rng: np.random.Generator) -> Part:
    """A hexagon bolt on its side: head, plain shank, helical thread, chamfered tip; its axis is x."""
    shank, pitch = rng.uniform(6.5, 8.5), rng.uniform(2.4, 3.2)
    half, inner = rng.uniform(34, 43), shank * rng.uniform(1.6, 1.8)
    head, threaded = rng.uniform(0.62, 0.8) * 2 * shank, rng.uniform(0.5, 0.8)
    roll = rng.choice([0.0, math.pi / 6]) + rng.uniform(-0.1, 0.1)
    base, gloss = jittered(rng, (STEEL, ZINC, YELLOW_ZINC, (0.42, 0.42, 0.44))), rng.uniform(0.4, 0.75)
    drawn, mottled, phase = Noise(rng, 1.2), Noise(rng, 12), rng.uniform(0, 1)
    depth = 0.27 * pitch

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        along = x + half  # from the outer face of the head
        rest = 2 * half - head
        start = head + (1 - threaded) * rest
        turn = (along / pitch + y / (2 * shank) * 0.5 + phase) % 1.0
        groove = depth * np.abs(2 * turn - 1) * np.clip((along - start) / pitch, 0, 1)
        tip = np.clip(along - (2 * half - 0.35 * shank), 0, None)
        radius = np.maximum(shank - groove - 0.9 * tip, 0.5)
        in_shank = (along >= head) & (along < 2 * half) & (np.abs(y) < radius)
        round_top = np.sqrt(np.maximum(radius * radius - y * y, 0))
        faces = [roll + math.pi / 2 + k * math.pi / 3 for k in (-1, 0, 1)]
        tops = np.min([(inner - y * math.cos(a)) / math.sin(a) for a in faces if math.sin(a) > 0.2], axis=0)
        width = inner / math.cos(math.pi / 6) * max(abs(math.cos(roll + k * math.pi / 3)) for k in range(3))
        at_end = np.maximum(-along, along - head)
        in_head = (at_end < 0) & (np.abs(y) < width) & (tops > 0)
        top = np.where(in_head, tops - 0.7 * edge_drop(at_end, 2.0), round_top)
        scratched = drawn(x * 0.15, y)
        colour = painted(base, 1 + 0.06 * scratched + 0.03 * mottled(x, y) - 0.16 * groove / depth)
        return surface(inner + top, in_head | in_shank, colour, gloss * (1 + 0.1 * scratched))

    return surface_at


def gear(rng: np.random.Generator) -> Part:
    """A spur gear: teeth, a sunk web with holes, a raised hub with bore and keyway."""
    radius, teeth = rng.uniform(33, 41), int(rng.integers(16, 25))
    deep, rim = 2.3 * radius / teeth * 0.62, rng.uniform(0.70, 0.76) * radius
    hub, bore = rng.uniform(0.36, 0.42) * radius, rng.uniform(0.18, 0.23) * radius
    thick, sunk, proud = rng.uniform(8, 11), rng.uniform(2.0, 3.5), rng.uniform(1.0, 3.0)
    holes, first = int(rng.choice([0, 4, 5, 6])), rng.uniform(0, 2 * math.pi)
    nylon = (0.86, 0.84, 0.78)
    base = jittered(rng, (STEEL, BRASS, nylon, (0.5, 0.51, 0.53)))
    gloss = 0.25 if max(base) > 0.8 else rng.uniform(0.4, 0.7)
    milled, mottled = Noise(rng, 1.0), Noise(rng, 13)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        away = np.hypot(x, y)
        out = np.maximum(star(x, y, radius - deep, teeth, deep, 1.8), bore - away)
        out = np.maximum(out, -box(x - bore, y, 0.22 * bore + 2.0, 0.24 * bore))
        web = np.maximum(away - rim, hub - away)
        if holes:
            middle, turn = 0.5 * (rim + hub), 2 * math.pi / holes
            angle = (np.arctan2(y, x) - first) % turn - turn / 2
            beside = np.hypot(away * np.cos(angle) - middle, away * np.sin(angle))
            out = np.maximum(out, 0.30 * (rim - hub) - beside)
        height = thick - sunk * smoothstep(web, 1.6) + proud * smoothstep(away - hub, 1.2) - 0.8 * edge_drop(out, 1.0)
        cut = milled(x * 0.2 + y * 0.3, y - x * 0.4)
        colour = painted(base, 1 + 0.045 * cut + 0.03 * mottled(x, y) - 0.10 * smoothstep(web, 1.6))
        return surface(height, out < 0, colour, gloss * (1 + 0.1 * cut))

    return surface_at


def bracket(rng: np.random.Generator) -> Part:
    """A painted angle bracket: an L-shaped plate with an upright flange, screw holes, and a rib in the corner."""
    long, short = rng.uniform(32, 39), rng.uniform(25, 33)
    arm, plate = rng.uniform(19, 24), rng.uniform(3.0, 4.5)
    wall, tall = rng.uniform(3.5, 5.0), rng.uniform(10, 17)
    screw, mirrored = rng.uniform(3.2, 4.6), float(rng.choice([-1, 1]))
    paints = ((0.30, 0.36, 0.44), (0.72, 0.25, 0.16), (0.84, 0.83, 0.79), (0.88, 0.66, 0.14), (0.22, 0.42, 0.30))
    base, gloss = jittered(rng, paints), rng.uniform(0.2, 0.45)
    peel, mottled = Noise(rng, 1.6), Noise(rng, 20)
    places = [(-long + 1.35 * arm, -short + 0.55 * arm), (long - 0.5 * arm, -short + 0.55 * arm)]
    places.append((-long + 0.55 * arm, short - 0.5 * arm))

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        y = mirrored * y
        flat = box(x, y + short - arm / 2, long, arm / 2, 3.0)
        upright = box(x + long - arm / 2, y, arm / 2, short, 3.0)
        out, near = np.minimum(flat, upright), np.full_like(x, 99.0)
        for a, b in places:
            near = np.minimum(near, np.hypot(x - a, y - b) - screw)
        flange = box(x, y + short - wall / 2, long, wall / 2, 1.0)
        rib = np.maximum(np.abs(x + long - wall) - 1.4, np.abs(y + short - arm * 0.6) - arm * 0.6)
        slope = np.clip(1 - (y + short) / (1.2 * arm), 0, 1)
        height = plate - edge_drop(out, 0.9) - 1.2 * smoothstep(near - 1.6, 2.0)
        height = np.maximum(height, plate + (tall - plate) * smoothstep(flange, 1.0))
        height = np.maximum(height, plate + (0.75 * tall - plate) * slope * smoothstep(rib, 0.8))
        orange = peel(x, y)
        colour = painted(
            base, 1 + 0.025 * orange + 0.03 * mottled(x, y) + 0.10 * smoothstep(np.abs(out + 0.6) - 0.5, 0.8)
        )
        return surface(height + 0.03 * orange, (out < 0) & (near > 0), colour, gloss)

    return surface_at


def cap(rng: np.random.Generator) -> Part:
    """A crown cap: fluted skirt, slightly domed top, printed with rings, rays and a word-like bar."""
    radius, flutes = rng.uniform(29, 36), int(rng.choice([19, 20, 21, 22, 23]))
    tall, dome = rng.uniform(10, 13), rng.uniform(0.6, 1.8)
    base = jittered(rng, ((0.72, 0.13, 0.12), (0.13, 0.27, 0.58), (0.10, 0.42, 0.26), (0.80, 0.66, 0.30)))
    ink = jittered(rng, ((0.93, 0.91, 0.84), (0.95, 0.82, 0.36), (0.10, 0.10, 0.12)))
    ring, rays = rng.uniform(0.60, 0.72), int(rng.choice([5, 6, 8]))
    inner, turned, worn = rng.uniform(0.26, 0.36), rng.uniform(0, 2 * math.pi), Noise(rng, 5, 3)
    gloss = rng.uniform(0.35, 0.65)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        away = np.hypot(x, y)
        top = 0.80 * radius
        out = star(x, y, radius * 0.965, flutes, radius * 0.035)
        wave = np.cos(flutes * np.arctan2(y, x))
        fall = np.clip((away - top) / (radius - top), 0, 1)
        skirt = tall * (1 - 0.80 * fall**1.5) + 1.1 * wave * fall * (1 - 0.35 * fall)
        height = np.where(
            away < top, tall + dome * (1 - (away / top) ** 2) - 0.5 * smoothstep(np.abs(away - top), 3.0), skirt
        )
        a, b = x * math.cos(turned) + y * math.sin(turned), y * math.cos(turned) - x * math.sin(turned)
        ink_share = smoothstep(np.abs(away - ring * radius) - 0.9, 0.7)
        ink_share = np.maximum(ink_share, smoothstep(star(a, b, inner * radius, rays, 0.42 * inner * radius), 0.7))
        ink_share *= 1 - smoothstep(box(a, b, 0.62 * inner * radius, 1.6, 0.8), 0.7)
        rub = worn(x, y)
        colour = blended(painted(base, 1 + 0.03 * rub), ink, ink_share * np.clip(0.93 + 0.05 * rub, 0, 1))
        return surface(height, out < 0, colour, gloss)

    return surface_at
