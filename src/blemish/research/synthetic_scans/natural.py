"""Baked, woven, wooden and ceramic parts: biscuit, bread, dowel, rope, tile. Each function draws one of its class."""

from __future__ import annotations

import math

import numpy as np

from blemish.research.synthetic_scans.fields import Noise, box, edge_drop, smoothstep, star
from blemish.research.synthetic_scans.surface import Part, Surface, blended, jittered, painted, surface


def biscuit(rng: np.random.Generator) -> Part:
    """A round biscuit with a scalloped edge, pricked with holes, crumbly, darker where it baked longer."""
    radius, waves = rng.uniform(29, 37), int(rng.integers(18, 27))
    squeezed, thick = rng.uniform(0.93, 1.0), rng.uniform(6.5, 9.5)
    pattern, gap = int(rng.integers(2)), rng.uniform(8.5, 11.0)
    base, brown = jittered(rng, ((0.84, 0.64, 0.38), (0.79, 0.57, 0.32))), jittered(rng, ((0.50, 0.28, 0.11),))
    crumbs, lumps, baked = Noise(rng, 1.6, 2), Noise(rng, 9), Noise(rng, 22)
    bias = rng.uniform(-0.1, 0.15)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        y = y / squeezed
        out = star(x, y, radius, waves, 0.025 * radius)
        away = np.hypot(x, y)
        if pattern:
            row = np.round(y / gap)
            shifted = x - gap / 2 * (row % 2)
            prick = np.hypot(shifted - gap * np.round(shifted / gap), y - gap * row)
        else:
            turns = 2 * math.pi / 6
            angle = np.arctan2(y, x) % turns - turns / 2
            prick = np.hypot(away * np.cos(angle) - 1.9 * gap, away * np.sin(angle))
            prick = np.minimum(prick, away)
        hole = smoothstep(prick - 1.3, 1.3) * (away < 0.82 * radius)
        grain, lump = crumbs(x, y), lumps(x, y)
        height = thick + 0.22 * grain + 0.25 * lump - 3.2 * hole - 0.9 * edge_drop(out, 4.5)
        border = np.clip(1 + out / (0.3 * radius), 0, 1)
        toast = np.clip(0.20 + bias + 0.55 * border**2 + 0.14 * baked(x, y) + 0.06 * grain, 0, 0.95)
        colour = blended(painted(base, 1 + 0.05 * grain - 0.35 * hole), brown, toast)
        return surface(height, out < 0, colour, 0.04)

    return surface_at


def bread(rng: np.random.Generator) -> Part:
    """An oval bread roll: domed, scored along its length, brown crust, pale in the cut, dusted with flour."""
    long, wide, tall = rng.uniform(36, 45), rng.uniform(26, 31), rng.uniform(19, 26)
    base, pale = jittered(rng, ((0.70, 0.42, 0.18), (0.62, 0.35, 0.14))), jittered(rng, ((0.91, 0.80, 0.58),))
    skew, reach, bow = rng.uniform(-0.25, 0.25), rng.uniform(0.5, 0.7), rng.uniform(-6, 6)
    lumps, crust, flour, baked = Noise(rng, 13), Noise(rng, 1.8, 2), Noise(rng, 5, 3), Noise(rng, 24)
    dusting, gape = rng.uniform(0.0, 0.5), rng.uniform(2.6, 4.2)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        lump = lumps(x, y)
        beyond = np.hypot(x / long, y / wide) * (1 - 0.018 * lump)
        dome = np.sqrt(np.maximum(1 - np.minimum(beyond, 1) ** 2.6, 0))
        along = x / (reach * long)
        aside = y - skew * x - bow * (1 - along * along) * 0.4
        opened = np.maximum(1 - along * along, 0) ** 0.5
        cut = smoothstep(np.abs(aside) - gape * opened, 2.2) * (opened > 0)
        lip = smoothstep(np.abs(np.abs(aside) - 1.6 * gape * opened) - 1.0, 3.0) * (opened > 0)
        skin = crust(x, y)
        height = tall * dome + 0.5 * lump * dome - 2.2 * cut + 1.1 * lip * opened + (0.10 + 0.18 * cut) * skin
        brown = 1 + 0.10 * baked(x, y) + 0.07 * skin - 0.30 * np.clip(1 - 1.7 * dome, 0, 1) + 0.12 * (1 - dome)
        colour = blended(painted(base, brown), pale, np.clip(0.78 * cut - 0.05 * np.abs(skin), 0, 1))
        dust = dusting * np.clip(0.5 * flour(x, y) + 0.1, 0, 1) * dome
        return surface(height, beyond < 1, blended(colour, (0.95, 0.92, 0.86), dust), 0.08 * (1 - dust))

    return surface_at


def dowel(rng: np.random.Generator) -> Part:
    """A grooved wooden dowel on its side, chamfered at both ends; its axis is x and the grain runs along it."""
    half, radius = rng.uniform(36, 46), rng.uniform(10, 14)
    grooves, depth = int(rng.integers(14, 21)), rng.uniform(0.7, 1.2)
    roll, chamfer = rng.uniform(0, 1), rng.uniform(2.5, 4.5)
    base, dark = jittered(rng, ((0.82, 0.66, 0.45), (0.74, 0.56, 0.36))), jittered(rng, ((0.52, 0.33, 0.17),))
    grain, fibre, wide = Noise(rng, 1.5, 3), Noise(rng, 0.5, 1), Noise(rng, 6)
    bent, knot_x, knotty = rng.uniform(-0.06, 0.06), rng.uniform(-0.7, 0.7) * half, rng.random() < 0.35

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        end = np.clip(np.abs(x) - (half - chamfer), 0, None)
        reach = radius - 0.75 * end
        inside = (np.abs(x) < half) & (np.abs(y) < reach)
        angle = np.arcsin(np.clip(y / radius, -1, 1))
        ridge = np.abs(np.sin(grooves / 2 * angle + math.pi * roll))
        groove = depth * np.clip(1 - 2.2 * ridge, 0, 1) * (end < 0.5 * chamfer)
        height = radius + np.sqrt(np.maximum(reach * reach - y * y, 0)) - groove
        bend = y + bent * x
        if knotty:
            bend = bend + 4 * np.exp(-(((x - knot_x) / 8) ** 2)) * np.sign(bend + 2) * np.exp(-((bend / 6) ** 2))
        ring = 0.6 * grain(0.045 * x, bend) + 0.5 * wide(0.05 * x, bend)
        streak = fibre(0.05 * x, y)
        share = np.clip(0.25 + 0.22 * ring + 0.25 * groove / depth, 0, 0.9)
        colour = blended(painted(base, 1 + 0.035 * streak), dark, share)
        return surface(height + 0.03 * streak, inside, colour, 0.06)

    return surface_at


def rope(rng: np.random.Generator) -> Part:
    """A piece of three-strand rope in a gentle bow, its ends whipped with tape or thread."""
    half, radius = rng.uniform(38, 46), rng.uniform(7.5, 10)
    lay, phase, hand = rng.uniform(2.6, 3.4) * radius, rng.uniform(0, 1), float(rng.choice([-1, 1]))
    bow, wander, start = rng.uniform(-7, 7), rng.uniform(0.5, 3), rng.uniform(0, 6)
    base = jittered(rng, ((0.78, 0.66, 0.44), (0.86, 0.85, 0.80), (0.20, 0.35, 0.58)))
    marker = jittered(rng, ((0.75, 0.20, 0.14), (0.15, 0.16, 0.18), (0.86, 0.72, 0.20)))
    tape, taped = jittered(rng, ((0.16, 0.16, 0.17), (0.65, 0.18, 0.15), (0.9, 0.89, 0.85))), rng.uniform(6, 11)
    fibre, fuzz = Noise(rng, 0.9), Noise(rng, 4)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        u = x
        v = y - bow * (1 - 2 * (x / half) ** 2) - wander * np.sin(x / 14 + start)
        around = np.arcsin(np.clip(v / radius, -1, 1))
        strands = 3 * hand * (u / lay + phase) + around / math.pi * 1.5
        turn = strands - np.floor(strands)
        hump = np.sqrt(np.maximum(1 - (2 * turn - 1) ** 2, 0))
        ends = np.abs(u) - half
        bound = smoothstep(np.abs(ends + taped / 2) - taped / 2 + 0.6, 0.8)
        thread = fibre(0.6 * u - 0.9 * hand * v + 9 * np.floor(strands), 6 * turn)
        own = radius * (1 - 0.13 * (1 - hump) - 0.03 * np.abs(thread)) * (1 - bound) + 0.93 * radius * bound
        inside = (ends < 0) & (np.abs(v) < own)
        height = radius + np.sqrt(np.maximum(own * own - v * v, 0)) - 0.8 * edge_drop(ends, 2.0)
        yarn = np.where(np.floor(strands) % 3 == 1, 1.0, 0.0)
        colour = blended(
            painted(base, 0.72 + 0.28 * hump + 0.08 * thread), marker, 0.55 * yarn * (np.abs(turn - 0.5) < 0.2)
        )
        wound = painted(tape, 1 + 0.04 * fuzz(u, v) - 0.10 * (np.sin(5.0 * u) > 0.4))
        return surface(height, inside, blended(colour, wound, bound), 0.05 + 0.3 * bound)

    return surface_at


def tile(rng: np.random.Generator) -> Part:
    """A glazed tile with a rounded edge: printed border and corner arcs, a low relief in the middle."""
    half_x = rng.uniform(30, 36)
    half_y, thick = half_x * rng.choice([1.0, 1.0, 0.78]), rng.uniform(6, 8.5)
    base = jittered(rng, ((0.88, 0.86, 0.80), (0.80, 0.85, 0.86), (0.86, 0.78, 0.66)))
    ink = jittered(rng, ((0.16, 0.30, 0.52), (0.55, 0.22, 0.14), (0.18, 0.40, 0.34), (0.30, 0.30, 0.33)))
    inset, petals = rng.uniform(4.5, 7.0), int(rng.choice([4, 6, 8]))
    flower, proud = rng.uniform(0.36, 0.46) * half_y, rng.uniform(0.7, 1.4)
    arc, cloud, glaze = rng.uniform(0.40, 0.52) * half_y, Noise(rng, 11, 3), Noise(rng, 7)
    gloss, edge = rng.uniform(0.5, 0.85), rng.uniform(1.2, 2.4)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        out = box(x, y, half_x, half_y, 1.5)
        bloom = star(x, y, 0.72 * flower, petals, 0.28 * flower)
        relief = proud * smoothstep(bloom, 2.2) - 0.8 * proud * smoothstep(np.hypot(x, y) - 0.22 * flower, 1.6)
        height = thick - edge_drop(out, edge) + relief + 0.05 * glaze(x, y)
        mottle = cloud(x, y)
        corner = np.hypot(np.abs(x) - half_x, np.abs(y) - half_y)
        lines = smoothstep(np.abs(out + inset) - 0.7, 0.7)
        lines = np.maximum(lines, smoothstep(np.abs(corner - arc) - 1.5, 0.7))
        lines = np.maximum(lines, 0.9 * smoothstep(np.abs(bloom) - 0.6, 0.7))
        lines = np.maximum(lines, 0.75 * smoothstep(np.hypot(x, y) - 0.22 * flower, 0.7))
        colour = blended(painted(base, 1 + 0.022 * mottle), ink, lines * np.clip(0.88 + 0.06 * mottle, 0, 1))
        return surface(height, out < 0, colour, gloss)

    return surface_at
