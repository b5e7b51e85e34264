"""Scene synthesis: objects from a bank, placed at random on a dark canvas, without touching.

Contract: a scene is a function of (bank, settings, number of scenes, seed) and of nothing else.  Scenes are made in
chunks of fixed size, each with its own child of the seed, so the bytes are the same for any number of workers.

How a scene is made: its count is dealt out so that all counts are equally frequent; objects, scales and rotations are
drawn uniformly; then each object in turn takes a place drawn uniformly from the places that are still free.  When one
finds none, all objects of the scene start afresh *with the same objects*, so crowded scenes don't drift towards small
ones.  Starts are bounded; then a ValueError says what didn't fit.  Colours, where there are any, are drawn last, so RGB
scenes have the counts, objects and places of the grey scenes of the same seed.  Masks take nothing from the seed.

Speed: occupied pixels are bits of 64-bit words, so testing a place costs one shift and one AND a row, for many scenes
and many places at once.

References:
    Xu et al., NeurIPS 2019, arXiv:1906.03923, section 5: digits cropped to their ink, placed without touching pixels.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from asr_tf import checks
from asr_tf.data.objects import Crops, crop_to_ink, transform
from asr_tf.data.scenes import Scenes

__all__ = ["SceneSettings", "synthesize", "synthesize_in_chunks"]

PLACEMENTS = ("pixels", "boxes")

# Part of the contract: another value gives other scenes for the same seed.
_CHUNK_SCENES = 512
_PLACES_A_ROUND = 8
_ROUNDS_AN_OBJECT = 12
_STARTS_A_SCENE = 300
_WORD_BITS = 64


@dataclasses.dataclass(frozen=True)
class SceneSettings:
    """What scenes look like; all lengths in pixels.

    Attributes:
        canvas_size: (H, W).
        counts: the allowed numbers of objects, each equally frequent.
        scale_range: (low, high), isotropic factor on an object's size, uniform.
        rotation_range: (low, high) in degrees, counter-clockwise, uniform.
        margin_px: pixels kept free between an object's square crop and the canvas edge.
        gap_px: free pixels between two objects, along either axis or diagonally.
        placement: 'pixels' keeps the ink of objects apart (square crops may overlap), 'boxes' keeps the square crops
            apart, and with them the tight rectangles.
        colours: the (red, green, blue) in [0, 1] that objects may have, each equally frequent; a pixel of an object
            is its grey value times the colour.  Empty, the default, means grey scenes.

    Raises:
        ValueError: a value out of its range.
    """

    canvas_size: tuple[int, int] = (50, 50)
    counts: tuple[int, ...] = (1, 3)
    scale_range: tuple[float, float] = (1.0, 1.0)
    rotation_range: tuple[float, float] = (0.0, 0.0)
    margin_px: int = 0
    gap_px: int = 1
    placement: str = "pixels"
    colours: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        checks.check_choice("placement", self.placement, PLACEMENTS)
        for side in self.canvas_size:
            checks.check_positive("canvas_size", side)
        if not self.counts or any(count != int(count) or count < 0 for count in self.counts):
            raise ValueError(f"counts must be whole numbers from 0, at least one, got {self.counts!r}.")
        if len(set(self.counts)) != len(self.counts):
            raise ValueError(f"counts must differ from each other, got {self.counts!r}.")
        for name in ("scale_range", "rotation_range"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"{name} must be (low, high) with low <= high, got {(low, high)!r}.")
        checks.check_positive("the lower end of scale_range", self.scale_range[0])
        # Ink at distance 0 would touch, which 'pixels' promises not to happen; square crops may well share an edge.
        least_gap = 1 if self.placement == "pixels" else 0
        checks.check_range(f"gap_px (placement {self.placement!r})", self.gap_px, least_gap, _WORD_BITS // 4)
        checks.check_range("margin_px", self.margin_px, 0, min(self.canvas_size) // 2)
        for colour in self.colours:
            if len(colour) != 3 or not all(0.0 <= part <= 1.0 for part in colour) or not any(colour):
                raise ValueError(f"colours must each be (red, green, blue) in [0, 1] and not black, got {colour!r}.")

    @property
    def most_objects(self) -> int:
        """M, the largest count."""
        return max(self.counts)

    @property
    def channels(self) -> int:
        """C of the scenes: 1 (grey) without colours, 3 (RGB) with them."""
        return 3 if self.colours else 1

    @property
    def keeps_objects_as_they_are(self) -> bool:
        """True if objects are neither scaled nor turned."""
        return self.scale_range == (1.0, 1.0) and self.rotation_range == (0.0, 0.0)


class _Footprints(NamedTuple):
    """What an object occupies, one 64-bit word a row; bit c is column c.

    Attributes:
        own: uint64 [K, S], the pixels the object takes.
        kept_free: uint64 [K, S + 2 gap], the same grown by the gap; origin at (-gap, -gap) of `own`.
    """

    own: np.ndarray
    kept_free: np.ndarray


def synthesize(
    objects: np.ndarray,
    settings: SceneSettings,
    num_scenes: int,
    seed: int,
    *,
    labels: np.ndarray | None = None,
    num_workers: int = 1,
) -> Scenes:
    """Makes scenes.

    Args:
        objects: uint8 [K, h, w], the bank; ink is what is above 0.  If all its values are 0 or 255, scenes are binary
            too, also where objects are scaled or turned.
        settings: see `SceneSettings`.
        num_scenes: N; where it isn't a multiple of the number of counts, frequencies differ by at most one.
        seed: whole number from 0.
        labels: int [K], the class of each object of the bank, or None.
        num_workers: threads; has no influence on the result.

    Returns:
        `Scenes` with images [N, H, W, C], counts, boxes, ink_boxes, masks [N, M, H, W] and, if `labels` was given,
        labels; C is 3 where the settings have colours and 1 elsewhere, M is the largest of the counts.  Masks are by
        far the largest: M times the bytes of grey images.

    Raises:
        ValueError: no objects, an object without ink or wider than 64 px, or scenes that can't be placed.
    """
    chunks = list(synthesize_in_chunks(objects, settings, num_scenes, seed, labels=labels, num_workers=num_workers))
    known = [key for key, array in vars(chunks[0]).items() if array is not None]
    return Scenes(**{key: np.concatenate([getattr(chunk, key) for chunk in chunks]) for key in known})


def synthesize_in_chunks(
    objects: np.ndarray,
    settings: SceneSettings,
    num_scenes: int,
    seed: int,
    *,
    labels: np.ndarray | None = None,
    num_workers: int = 1,
) -> Iterator[Scenes]:
    """Makes the same scenes as `synthesize`, a few hundred at a time, so that they needn't all be in memory.

    Args:
        objects, settings, num_scenes, seed, labels: as in `synthesize`.
        num_workers: threads; with more than one, chunks are made ahead of the caller.

    Returns:
        An iterator over `Scenes`, whose concatenation is what `synthesize` returns.

    Raises:
        ValueError: as `synthesize`; that scenes can't be placed is only told by the iterator.
    """
    objects = np.asarray(objects)
    if objects.ndim != 3 or not len(objects) or objects.dtype != np.uint8:
        raise ValueError(f"objects must be a non-empty uint8 array [K, h, w], got {objects.dtype} {[*objects.shape]}.")
    if labels is not None and np.shape(labels) != (len(objects),):
        raise ValueError(f"labels must have shape [{len(objects)}], got {list(np.shape(labels))}.")
    checks.check_positive("num_scenes", num_scenes)
    checks.check_positive("num_workers", num_workers)

    num_chunks = -(-num_scenes // _CHUNK_SCENES)
    deal_seed, *chunk_seeds = np.random.SeedSequence(seed).spawn(num_chunks + 1)
    counts = np.resize(np.asarray(settings.counts, np.int32), num_scenes)
    counts = np.random.default_rng(deal_seed).permutation(counts)
    crops = crop_to_ink(objects)

    def make_chunk(chunk: int) -> Scenes:
        rows = slice(chunk * _CHUNK_SCENES, (chunk + 1) * _CHUNK_SCENES)
        return _make_chunk(crops, settings, counts[rows], labels, np.random.default_rng(chunk_seeds[chunk]))

    return map(make_chunk, range(num_chunks)) if num_workers == 1 else _in_threads(make_chunk, num_chunks, num_workers)


def _in_threads(make_chunk: Callable[[int], Scenes], num_chunks: int, num_workers: int) -> Iterator[Scenes]:
    """Yields the chunks in their order while threads make them."""
    # Threads, not processes: NumPy lets go of the interpreter in its loops, and forking a process that holds
    # TensorFlow's threads can hang.
    with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
        yield from pool.map(make_chunk, range(num_chunks))


def _make_chunk(
    bank: Crops,
    settings: SceneSettings,
    counts: np.ndarray,
    labels: np.ndarray | None,
    rng: np.random.Generator,
) -> Scenes:
    """Makes the scenes of one chunk: draws objects, places them, paints them."""
    present = np.arange(settings.most_objects) < counts[:, None]  # [A, M]
    scene_of, slot_of = np.nonzero(present)  # one entry an object, scene by scene
    num_objects = len(scene_of)
    chosen = rng.integers(len(bank.sides), size=num_objects)
    scales = rng.uniform(*settings.scale_range, size=num_objects)
    angles = rng.uniform(*settings.rotation_range, size=num_objects)
    crops = bank.select(chosen)
    if num_objects and not settings.keeps_objects_as_they_are:
        crops = transform(crops, scales, angles)

    table = np.full(present.shape, -1)
    table[present] = np.arange(num_objects)
    corners = _place(crops, table, counts, settings, rng)  # [num_objects, 2]

    height, width = settings.canvas_size
    images = np.zeros((len(counts), height, width, settings.channels), np.uint8)
    masks = np.zeros((*present.shape, height, width), np.uint8)
    which, row, column = np.nonzero(crops.images)
    ink = crops.images[which, row, column]  # [ink pixels]
    # Flat places of the pixels: one index is quicker than one an axis.  A scene has one image, and a mask a slot.
    first = (scene_of * height + corners[:, 0]) * width + corners[:, 1]
    pixels = first[which] + row * width + column
    more_masks = scene_of * (settings.most_objects - 1) + slot_of  # before the object's, than images before its scene's
    masks.reshape(-1)[pixels + (more_masks * height * width)[which]] = ink
    values = ink[:, None]
    if settings.colours:
        colours = np.asarray(settings.colours, np.float64)[rng.integers(len(settings.colours), size=num_objects)]
        values = _coloured(values, colours[which])
    images.reshape(-1, settings.channels)[pixels] = values

    canvas = np.array([height, width, height, width], np.float64)
    boxes = np.zeros((*present.shape, 4), np.float32)
    ink_boxes = np.zeros_like(boxes)
    origin = np.concatenate([corners, corners], axis=1)
    squares = np.stack([crops.sides * 0, crops.sides * 0, crops.sides, crops.sides], axis=1)
    boxes[scene_of, slot_of] = (origin + squares) / canvas
    ink_boxes[scene_of, slot_of] = (origin + crops.ink) / canvas
    classes = None
    if labels is not None:
        classes = np.full(present.shape, -1, np.int32)
        classes[present] = np.asarray(labels)[chosen]
    return Scenes(images, counts, boxes, ink_boxes, classes, masks)


def _coloured(ink: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Multiplies grey values by colours.

    A value above 0 doesn't round to 0: ink stays ink, and the rectangles around it stay tight.

    Args:
        ink: uint8 [n, 1].
        colours: float64 [n, 3] in [0, 1].

    Returns:
        uint8 [n, 3].
    """
    values = ink * colours
    return np.maximum(np.rint(values), values > 0.0).astype(np.uint8)


def _bits(pixels: np.ndarray) -> np.ndarray:
    """Packs bool [..., C] with C <= 64 into uint64 [...]."""
    weights = np.uint64(1) << np.arange(pixels.shape[-1], dtype=np.uint64)
    return np.where(pixels, weights, np.uint64(0)).sum(axis=-1, dtype=np.uint64)


def _footprints(crops: Crops, settings: SceneSettings) -> _Footprints:
    """Returns what each object occupies and what must stay free for it."""
    side = crops.images.shape[1]
    gap = settings.gap_px
    if side + 2 * gap > _WORD_BITS:
        raise ValueError(f"objects may be at most {_WORD_BITS - 2 * gap} px wide at gap_px={gap}, got {side} px.")
    if settings.placement == "pixels":
        own = _bits(crops.images > 0)
    else:
        inside = np.arange(side) < crops.sides[:, None]
        own = _bits(inside[:, :, None] & inside[:, None, :])
    wide = own.copy()
    for shift in range(1, 2 * gap + 1):
        wide |= own << np.uint64(shift)
    kept_free = np.zeros((len(own), side + 2 * gap), np.uint64)
    for shift in range(2 * gap + 1):
        kept_free[:, shift : shift + side] |= wide
    return _Footprints(own, kept_free)


def _place(
    crops: Crops,
    table: np.ndarray,
    counts: np.ndarray,
    settings: SceneSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Finds a place for each object.

    All scenes move at once, each at its own pace: a round proposes some places for the next object of every unfinished
    scene and takes the first free one.

    Args:
        crops: the objects, one row each.
        table: int [A, M], row of `crops` for each scene and slot.
        counts: int [A].
        settings: canvas, margin, gap, placement.
        rng: source of the proposals.

    Returns:
        int [objects, 2], the upper left corner (y, x) of each square crop.

    Raises:
        ValueError: an object larger than the canvas, or a scene that never fits.
    """
    height, width = settings.canvas_size
    gap = settings.gap_px
    corners = np.zeros((len(crops.sides), 2), np.int64)
    if not len(crops.sides):
        return corners
    free_px = np.array([height, width]) - 2 * settings.margin_px - crops.sides[:, None] + 1
    if (free_px < 1).any():
        raise _no_room(settings, int(counts.max()), f"an object is {crops.sides.max()} px wide")
    # Told at once where it's plain; what only turns out in trying is told after the last start.
    areas = (
        crops.sides**2
        if settings.placement == "boxes"
        else (crops.images > 0).sum(axis=(1, 2), dtype=np.int64)
    )
    needed = np.where(table >= 0, areas[table], 0).sum(axis=1)
    if needed.max() > height * width:
        raise _no_room(settings, int(counts.max()), f"they cover {needed.max()} px")
    footprints = _footprints(crops, settings)

    own_rows = np.arange(footprints.own.shape[1])
    kept_rows = np.arange(footprints.kept_free.shape[1])
    # Two spare words a row and some spare rows, so that reading past the edge needs no test.
    num_words = (width + 2 * gap) // _WORD_BITS + 2
    occupied = np.zeros((len(counts), height + 2 * gap + len(kept_rows), num_words), np.uint64)
    placed = np.zeros(len(counts), np.int64)
    rounds = np.zeros(len(counts), np.int64)
    starts = np.ones(len(counts), np.int64)
    while (active := np.flatnonzero(placed < counts)).size:
        moving = table[active, placed[active]]
        places = settings.margin_px + rng.integers(
            0, free_px[moving][:, None, :], size=(len(active), _PLACES_A_ROUND, 2)
        )
        word, bit = np.divmod(places[..., 1, None], _WORD_BITS)
        bit = bit.astype(np.uint64)
        where = (active[:, None, None], places[..., 0, None] + kept_rows)
        # A shift by 64 isn't defined, hence the two steps of the upper word.
        seen = occupied[(*where, word)] >> bit
        seen |= (occupied[(*where, word + 1)] << np.uint64(1)) << (np.uint64(63) - bit)
        is_free = ~(seen & footprints.kept_free[moving][:, None]).any(axis=-1)

        found = is_free.any(axis=1)
        first = is_free.argmax(axis=1)
        scenes, rows = active[found], moving[found]
        corners[rows] = places[found, first[found]]
        word, bit = np.divmod(corners[rows, 1, None] + gap, _WORD_BITS)
        bit = bit.astype(np.uint64)
        where = (scenes[:, None], corners[rows, 0, None] + gap + own_rows)
        occupied[(*where, word)] |= footprints.own[rows] << bit
        occupied[(*where, word + 1)] |= (footprints.own[rows] >> np.uint64(1)) >> (np.uint64(63) - bit)
        placed[scenes] += 1
        rounds[scenes] = 0

        stuck = active[~found]
        rounds[stuck] += 1
        again = stuck[rounds[stuck] >= _ROUNDS_AN_OBJECT]
        occupied[again] = 0
        placed[again] = 0
        rounds[again] = 0
        starts[again] += 1
        if (starts[again] > _STARTS_A_SCENE).any():
            raise _no_room(
                settings,
                int(counts[again][starts[again] > _STARTS_A_SCENE].max()),
                f"{_STARTS_A_SCENE} fresh starts found no room",
            )
    return corners


def _no_room(settings: SceneSettings, count: int, reason: str) -> ValueError:
    height, width = settings.canvas_size
    return ValueError(
        f"cannot place {count} objects on a canvas of {height} x {width} px with "
        f"placement={settings.placement!r}, gap_px={settings.gap_px}, margin_px={settings.margin_px}: {reason}; "
        "use fewer or smaller objects, a larger canvas, or a smaller gap."
    )
