"""The affine warp against scipy.ndimage, and the draws behind it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from optbench.datasets import augmentation
from optbench.datasets.augmentation import Augmentation, affine, sample, save_sample, warp
from optbench.datasets.base import Part
from optbench.trial import Augment

MODES = {"nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap", "constant": "constant"}
FULL = Augment(rotation=40, shift=0.3, zoom=0.4, shear=20)


def reference(image, matrix, shift, fill, value):
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - matrix @ centre + shift
    planes = [
        ndimage.affine_transform(plane, matrix, offset, order=1, mode=MODES[fill], cval=value)
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, axis=-1)


@pytest.mark.parametrize("fill", MODES)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), height=st.integers(2, 9), width=st.integers(2, 9), channels=st.integers(1, 3)
)
def test_the_warp_agrees_with_scipy(fill, seed, height, width, channels):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(3, height, width, channels))
    matrices, shifts = affine(FULL, generator.uniform(-1, 1, (3, 6)), height=height, width=width)
    found = warp(images, matrices, shifts, fill=fill, value=2.0)
    for image, matrix, shift, result in zip(images, matrices, shifts, found, strict=True):
        expected = reference(image, matrix, shift, fill, 2.0)
        # scipy's constant mode jumps to the value beyond the edge, where ours goes over in one pixel.
        if fill == "constant":
            padded = np.pad(image, ((9, 9), (9, 9), (0, 0)), constant_values=2.0)
            expected = reference(padded, matrix, shift, fill, 2.0)[9:-9, 9:-9]
        np.testing.assert_allclose(result, expected, atol=2e-4)


def part(n=40, dtype=np.uint8):
    images = np.random.default_rng(1).integers(0, 256, (n, 6, 5, 1)).astype(dtype)
    return Part(x=images, y=np.zeros(n, np.int64), rows=np.arange(0, n, 2), pool="images")


def test_nothing_asked_for_changes_nothing():
    images = part()
    found = Augmentation(Augment(), images, seed=0).epoch(images.rows, 1)
    np.testing.assert_array_equal(found, images.x[images.rows])
    assert found.dtype == np.uint8


def test_an_image_gets_the_same_change_in_whatever_order():
    images = part()
    augmentation_ = Augmentation(FULL, images, seed=3)
    straight = augmentation_.epoch(images.rows, 2)
    order = np.random.default_rng(0).permutation(len(images.rows))
    np.testing.assert_array_equal(augmentation_.epoch(images.rows[order], 2), straight[order])


def test_pixels_do_not_depend_on_how_many_are_warped_at_a_time(monkeypatch):
    images = part()
    whole = Augmentation(FULL, images, seed=3).epoch(images.rows, 2)
    monkeypatch.setattr(augmentation, "_PIECE", 1)
    np.testing.assert_array_equal(Augmentation(FULL, images, seed=3).epoch(images.rows, 2), whole)


def test_seed_and_epoch_change_the_pixels():
    images = part()
    first = Augmentation(FULL, images, seed=3).epoch(images.rows, 1)
    for seed, epoch in ((3, 2), (4, 1)):
        assert (Augmentation(FULL, images, seed=seed).epoch(images.rows, epoch) != first).any()


def test_the_draws_stay_within_the_declared_ranges():
    unit = np.random.default_rng(0).uniform(-1, 1, (1000, 6))
    turned, still = affine(Augment(rotation=10), unit, height=20, width=10)
    angles = np.rad2deg(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert 9.9 < np.abs(angles).max() <= 10
    assert (still == 0).all()
    same, moved = affine(Augment(shift=0.1), unit, height=20, width=10)
    assert (same == np.eye(2)).all()
    assert np.abs(moved).max(axis=0) == pytest.approx([2, 1], rel=0.01)
    zoomed, _ = affine(Augment(zoom=0.2), unit, height=20, width=10)
    for axis in (0, 1):
        assert (zoomed[:, axis, axis].min(), zoomed[:, axis, axis].max()) == pytest.approx(
            (0.8, 1.2), abs=0.01
        )


def test_a_shift_moves_by_whole_pixels_exactly():
    image = np.zeros((1, 5, 5, 1), np.uint8)
    image[0, 2, 2] = 200
    found = warp(image, np.eye(2)[None], np.array([[1.0, -1.0]]), fill="constant")
    assert found[0, 1, 3, 0] == 200
    assert found.sum() == 200


def test_the_picture_shows_originals_and_epochs(tmp_path):
    images = part()
    picture = sample(images, FULL, images=3, epochs=2)
    assert picture.shape == (18, 15, 1)
    np.testing.assert_array_equal(picture[:6, :5], images.x[0])
    save_sample(tmp_path / "sample.png", picture)
    assert (tmp_path / "sample.png").read_bytes().startswith(b"\x89PNG")
