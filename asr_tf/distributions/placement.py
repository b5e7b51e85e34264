"""Where the next object may lie: a mixture of narrow normals on a grid over the canvas, with free weights.

One normal can say "about there", but not "anywhere but where an object lies already".  Cells of a grid can: a weight a
cell, narrow normals around the cells' centres, and a sum over g x g cells that is cheap and exact, so that the density
stays tractable however sharp its edges are.  Everything is in the unbounded coordinates of `shift_latent`.

References:
    Bishop, "Mixture density networks", Aston University NCRG/94/004, 1994 (here with fixed components).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from asr_tf.distributions.gaussian import normal_log_prob
from asr_tf.distributions.sums import running_sum

__all__ = ["cell_centres", "normal_cell_logits", "placement_log_prob", "sample_placement"]

# A normal's standard deviation / the side of its cell: cells of equal weight add up to an even density.
_SPREAD = 0.5


def cell_centres(grid_size: int) -> np.ndarray:
    """Centres of g equal parts of an axis in canvas units, float32 [g] in (-1, 1)."""
    return ((np.arange(grid_size) + 0.5) * (2.0 / grid_size) - 1.0).astype(np.float32)


def _cells(grid_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of an axis's normals in the latent coordinate, [g] each."""
    centres = cell_centres(grid_size)
    widths = (2.0 / grid_size) / (1.0 - np.square(centres))  # of a cell, by the slope of its tanh
    return np.arctanh(centres).astype(np.float32), (_SPREAD * widths).astype(np.float32)


def normal_cell_logits(loc: tf.Tensor, log_scale: tf.Tensor, grid_size: int) -> tf.Tensor:
    """Weights that make the mixture about a normal.

    Args:
        loc, log_scale: float [..., 2], mean and log standard deviation of the latent, (x, y).
        grid_size: g.

    Returns:
        float [..., g, g], rows along y: the log-probability of each cell, up to what its width changes within it.
    """
    means, spreads = _cells(grid_size)
    share = normal_log_prob(means, loc[..., tf.newaxis], log_scale[..., tf.newaxis])  # [..., 2, g]
    share += tf.constant(np.log(spreads / _SPREAD), share.dtype)
    return share[..., 1, :, tf.newaxis] + share[..., 0, tf.newaxis, :]


def placement_log_prob(value: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Log-density of the mixture.

    Args:
        value: float [..., 2], shift latents (x, y).
        logits: float [..., g, g], unnormalized log-weights of the cells, rows along y.

    Returns:
        float [...], nats.
    """
    means, spreads = _cells(logits.shape[-1])
    value = tf.cast(value, logits.dtype)[..., tf.newaxis]
    near = normal_log_prob(value, tf.cast(means, logits.dtype), tf.cast(np.log(spreads), logits.dtype))
    joint = logits + near[..., 1, :, tf.newaxis] + near[..., 0, tf.newaxis, :]
    return tf.reduce_logsumexp(joint, axis=[-2, -1]) - tf.reduce_logsumexp(logits, axis=[-2, -1])


def sample_placement(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from the mixture.

    Args:
        logits: float [N, g, g].
        seed: int32 [2].

    Returns:
        float [N, 2], shift latents (x, y).
    """
    grid_size = logits.shape[-1]
    cell_seed, noise_seed = tf.unstack(tf.random.split(seed, 2))
    flat = tf.reshape(logits, [-1, grid_size**2])
    uniform = tf.random.stateless_uniform([tf.shape(flat)[0], 2], cell_seed, dtype=flat.dtype)
    # A row by what its cells weigh together, then a cell of it: two short sums instead of noise for every cell.
    weights = tf.reshape(tf.nn.softmax(flat), [-1, grid_size, grid_size])
    row = _index_at(tf.reduce_sum(weights, axis=-1), uniform[:, 0])
    column = _index_at(tf.gather(weights, row, batch_dims=1), uniform[:, 1])
    place = tf.stack([column, row], axis=-1)  # [N, 2]
    means, spreads = (tf.gather(tf.cast(values, flat.dtype), place) for values in _cells(grid_size))
    return means + spreads * tf.random.stateless_normal(tf.shape(place), noise_seed, dtype=flat.dtype)


def _index_at(weights: tf.Tensor, quantile: tf.Tensor) -> tf.Tensor:
    """int32 [N], where the running sums of weights [N, M] pass a share of them all, [N] in [0, 1)."""
    sums = running_sum(weights)
    passed = tf.reduce_sum(tf.cast(sums <= quantile[:, tf.newaxis] * sums[:, -1:], tf.int32), axis=-1)
    return tf.minimum(passed, weights.shape[-1] - 1)  # the product above may be rounded up to the whole sum
