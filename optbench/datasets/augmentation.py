"""Random affine changes of training images, in NumPy: the same pixels for every optimizer and framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.datasets.base import Part
from optbench.matching import Indices
from optbench.trial import Augment

#: Values warped at a time: the temporary arrays of one piece stay in a core's cache.
_PIECE = 2**15


class Augmentation:
    """The augmented training images of a trial, epoch by epoch.

    What happens to an image depends on the seed, the epoch and the image alone, not on the order of batches.

    Parameters
    ----------
    augment : Augment
        Ranges of the changes.
    part : Part
        The training part; its rows are sorted.
    seed : int
        Seed of the augment stream.
    """

    def __init__(self, augment: Augment, part: Part, *, seed: int) -> None:
        self._augment = augment
        self._part = part
        self._seed = seed

    def epoch(self, rows: Indices, epoch: int) -> NDArray[Any]:
        """Augment rows of the training pool for an epoch: [len(rows), height, width, channels], as stored."""
        unit = matching.stream(self._seed, "augment", epoch).uniform(-1, 1, (len(self._part), 6))
        height, width = self._part.x.shape[1:3]
        matrices, shifts = affine(self._augment, unit, height=height, width=width)
        places = np.searchsorted(self._part.rows, rows)
        return warp(
            self._part.x[rows],
            matrices[places],
            shifts[places],
            fill=self._augment.fill,
            value=self._augment.value,
        )


def affine(
    augment: Augment, unit: NDArray[np.float64], *, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn draws on [-1, 1] into maps from output to input pixels.

    Parameters
    ----------
    augment : Augment
        Ranges of the changes.
    unit : array of float, [n, 6]
        Rotation, shear, shift down and right, zoom down and right.
    height, width : int
        Of the images, in pixels.

    Returns
    -------
    matrices : array of float, [n, 2, 2]
        Rotation @ shear @ zoom, about the centre of the image.
    shifts : array of float, [n, 2]
        In pixels, added behind.
    """
    angle, shear = np.deg2rad(unit[:, 0] * augment.rotation), np.deg2rad(unit[:, 1] * augment.shear)
    zoom_down, zoom_right = (1 + unit[:, 4:] * augment.zoom).T
    matrices = np.empty((len(unit), 2, 2))
    matrices[:, 0, 0] = np.cos(angle) * zoom_down
    matrices[:, 0, 1] = -np.sin(angle + shear) * zoom_right
    matrices[:, 1, 0] = np.sin(angle) * zoom_down
    matrices[:, 1, 1] = np.cos(angle + shear) * zoom_right
    return matrices, unit[:, 2:4] * augment.shift * (height, width)


def warp(
    images: NDArray[Any],
    matrices: NDArray[np.float64],
    shifts: NDArray[np.float64],
    *,
    fill: str,
    value: float = 0.0,
) -> NDArray[Any]:
    """Resample images bilinearly.

    Parameters
    ----------
    images : array, [n, height, width, channels]
        Whole numbers come back rounded to the same type.
    matrices : array of float, [n, 2, 2]
        Output pixel p, counted from the centre c, shows the input at ``matrix @ (p - c) + c + shift``.
    shifts : array of float, [n, 2]
        In pixels, down and right.
    fill : str
        ``nearest``, ``reflect`` (d c b a | a b c d | d c b a), ``wrap`` or ``constant``, as in scipy.ndimage
        (where this ``wrap`` is called grid-wrap).
    value : float
        Of the pixels outside, under ``constant``.
    """
    out = np.empty_like(images)
    piece = max(1, _PIECE // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), piece):
        part = slice(start, start + piece)
        resampled = _bilinear(images[part], matrices[part], shifts[part], fill, value)
        out[part] = np.rint(resampled) if images.dtype.kind in "ui" else resampled
    return out


def _bilinear(
    images: NDArray[Any], matrices: NDArray[np.float64], shifts: NDArray[np.float64], fill: str, value: float
) -> NDArray[np.float32]:
    n, height, width, channels = images.shape
    down, right = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    m = matrices.astype(np.float32)[..., None, None]
    s = shifts.astype(np.float32)[..., None, None]
    centred_down, centred_right = down.astype(np.float32)[:, None], right.astype(np.float32)
    y = (m[:, 0, 0] * centred_down + (s[:, 0] + np.float32(height - 1) / 2)) + m[:, 0, 1] * centred_right
    x = (m[:, 1, 0] * centred_down + (s[:, 1] + np.float32(width - 1) / 2)) + m[:, 1, 1] * centred_right
    if fill in ("constant", "wrap"):
        # One more pixel on each side, so that the edge is interpolated towards what lies beyond it.
        mode: Any = {"constant_values": value} if fill == "constant" else {"mode": "wrap"}
        images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), **mode)
    y0, fy = _cells(y, height, fill)
    x0, fx = _cells(x, width, fill)
    rows, columns = images.shape[1:3]
    flat = images.astype(np.float32).reshape(-1, channels)
    corner = y0
    corner *= columns
    corner += x0
    corner += (np.arange(n, dtype=np.int32) * (rows * columns))[:, None, None]
    fy, fx = fy[..., None], fx[..., None]
    top = flat.take(corner, axis=0)
    top += fx * (flat.take(corner + 1, axis=0) - top)
    corner += columns
    bottom = flat.take(corner, axis=0)
    bottom += fx * (flat.take(corner + 1, axis=0) - bottom)
    bottom -= top
    bottom *= fy
    bottom += top
    return bottom


def _cells(
    position: NDArray[np.float32], size: int, fill: str
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Lower neighbour of each position on an axis, and the fraction of the way to the next one."""
    if fill == "wrap":
        position = np.mod(position, np.float32(size)) + 1
        last = size + 1
    elif fill == "constant":
        position = np.clip(position, -1, size) + 1
        last = size + 1
    else:
        if fill == "reflect":
            position = np.mod(position + np.float32(0.5), np.float32(2 * size))
            position = np.minimum(position, np.float32(2 * size) - position) - np.float32(0.5)
        position = np.clip(position, 0, size - 1)
        last = size - 1
    lower = np.minimum(position.astype(np.int32), max(last - 1, 0))
    return lower, position - lower


def sample(part: Part, augment: Augment, *, seed: int = 0, images: int = 8, epochs: int = 7) -> NDArray[Any]:
    """Lay out some training images and what the first epochs make of them, as one picture.

    Returns
    -------
    array, [images * height, (1 + epochs) * width, channels]
        A row an image: the original first, then one column an epoch. Pixels as stored.
    """
    rows = part.rows[np.linspace(0, len(part) - 1, min(images, len(part))).astype(np.int64)]
    augmentation = Augmentation(augment, part, seed=seed)
    columns = [part.x[rows], *(augmentation.epoch(rows, epoch) for epoch in range(1, epochs + 1))]
    picture: NDArray[Any] = np.concatenate([np.concatenate(column) for column in columns], axis=1)
    return picture


def save_sample(path: str | Path, picture: NDArray[Any]) -> None:
    """Write a picture of :func:`sample` as PNG, each pixel four wide."""
    from matplotlib.image import imsave

    large = picture.repeat(4, axis=0).repeat(4, axis=1)
    imsave(
        path, large[..., 0] if large.shape[-1] == 1 else large, cmap="gray", vmin=0, vmax=255, format="png"
    )
