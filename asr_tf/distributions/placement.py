"""Where the next object may lie: a mixture of narrow normals on a grid over the canvas, with free weights.

One normal can say "about there", but not "anywhere but where an object lies already".  Cells of a grid can: a weight a
cell, narrow normals around the cells' centres, and a sum over g x g cells that is cheap and exact, so that the density
stays tractable however sharp its edges are.  Everything is in the unbounded coordinates of `shift_latent`.

References:
    Bishop, "Mixture density networks", Aston University NCRG/94/004, 1994 (here with fixed components).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from asr_tf.distributions.presence import running_sum

__all__ = ["GridPlacement", "cell_centres", "normal_cell_logits"]

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
    share = tfd.Normal(loc[..., tf.newaxis], tf.exp(log_scale)[..., tf.newaxis]).log_prob(means)  # [..., 2, g]
    share += tf.constant(np.log(spreads / _SPREAD), share.dtype)
    return share[..., 1, :, tf.newaxis] + share[..., 0, tf.newaxis, :]


class GridPlacement(tfd.Distribution):
    """The mixture over shift latents (x, y), event shape [2].

    (`tfd.MixtureSameFamily` would hold g x g components of two numbers for each scene; the components' densities are
    a product of one factor a row and one a column.)
    """

    def __init__(self, logits: Any, name: str = "GridPlacement") -> None:
        """Initializes the distribution.

        Args:
            logits: float [..., g, g], unnormalized log-weights of the cells, rows along y.
            name: name of the operations.
        """
        parameters = dict(locals())
        with tf.name_scope(name) as scope:
            self._logits = tf.convert_to_tensor(logits, dtype_hint=tf.float32)
            super().__init__(
                dtype=self._logits.dtype,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=False,
                allow_nan_stats=True,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: int | None = None
    ) -> dict[str, tfp.util.ParameterProperties]:
        return {"logits": tfp.util.ParameterProperties(event_ndims=2)}

    @property
    def logits(self) -> tf.Tensor:
        """Float [..., g, g], as given."""
        return self._logits

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([2])

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([2], tf.int32)

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        means, spreads = (tf.cast(part, self.dtype) for part in _cells(self._logits.shape[-1]))
        near = tfd.Normal(means, spreads).log_prob(value[..., tf.newaxis])  # [..., 2, g]
        joint = self._logits + near[..., 1, :, tf.newaxis] + near[..., 0, tf.newaxis, :]
        return tf.reduce_logsumexp(joint, axis=[-2, -1]) - tf.reduce_logsumexp(self._logits, axis=[-2, -1])

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        """A row by what its cells weigh together, then a cell of it: two short sums, no noise for every cell."""
        cell_seed, noise_seed = tf.unstack(tfp.random.split_seed(seed, n=2, salt="GridPlacement"))
        grid_size = self._logits.shape[-1]
        shape = tf.concat([[n], tf.shape(self._logits)[:-2]], 0)
        flat = tf.reshape(self._logits, [-1, grid_size**2])
        weights = tf.reshape(tf.nn.softmax(flat), [-1, grid_size, grid_size])  # [M, g, g]
        weights = tf.tile(weights, [n, 1, 1])
        uniform = tf.random.stateless_uniform([tf.shape(weights)[0], 2], cell_seed, dtype=flat.dtype)
        row = _index_at(tf.reduce_sum(weights, axis=-1), uniform[:, 0])
        column = _index_at(tf.gather(weights, row, batch_dims=1), uniform[:, 1])
        place = tf.stack([column, row], axis=-1)  # [n M, 2]
        means, spreads = (tf.gather(tf.cast(values, flat.dtype), place) for values in _cells(grid_size))
        drawn = means + spreads * tf.random.stateless_normal(tf.shape(place), noise_seed, dtype=flat.dtype)
        return tf.reshape(drawn, tf.concat([shape, [2]], 0))


def _index_at(weights: tf.Tensor, quantile: tf.Tensor) -> tf.Tensor:
    """int32 [N], where the running sums of weights [N, M] pass a share of them all, [N] in [0, 1)."""
    sums = running_sum(weights)
    passed = tf.reduce_sum(tf.cast(sums <= quantile[:, tf.newaxis] * sums[:, -1:], tf.int32), axis=-1)
    return tf.minimum(passed, weights.shape[-1] - 1)  # the product above may be rounded up to the whole sum
