"""The presence code: how many objects a scene holds, as a unary code of T steps, exact and relaxed.

The code of a count n in 0..T is n ones, then T - n zeros.  Step t is asked only when step t - 1 said yes, with the
logit l_t, so that

    log P(n = k) = sum_{t <= k} log sigmoid(l_t) + [k < T] log sigmoid(-l_{k + 1})
    log P(n >= t) = sum_{s <= t} log sigmoid(l_s)

Everything is computed from these sums in log space: no clipping, and finite gradients at any finite logit.

References:
    Eslami et al., "Attend, Infer, Repeat", NIPS 2016, arXiv:1603.08575, section 2.1.
    Maddison et al., "The Concrete Distribution", ICLR 2017, arXiv:1611.00712, appendix C.3 (logit space).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

__all__ = [
    "PresenceCode",
    "RelaxedPresenceCode",
    "certain_presence_logits",
    "code_of_count",
    "relaxed_kl_estimate",
    "running_sum",
]

# exp(-1e6) is 0, and no likelihood of an image makes up for 1e6 nats; the logarithm is finite.
_CERTAIN_LOGIT = 1e6


def running_sum(values: tf.Tensor, reverse: bool = False) -> tf.Tensor:
    """Sums up to and with each element of the last axis, as one product with a triangle of ones.

    (Along an inner axis `tf.cumsum` takes ten times as long on a CPU.)

    Args:
        values: finite floating point [..., N] with N static and small.
        reverse: whether to sum from the end.

    Returns:
        As `values`.
    """
    triangle = np.tri(values.shape[-1], dtype=values.dtype.as_numpy_dtype)  # [to, from]
    rows = tf.reshape(values, [-1, len(triangle)])
    return tf.reshape(tf.matmul(rows, triangle if reverse else triangle.T), tf.shape(values))


def code_of_count(count: Any, num_steps: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Unary codes of counts.

    Args:
        count: integer [...]; counts under 0 give the code of 0, counts over T that of T.
        num_steps: T.
        dtype: dtype of the code.

    Returns:
        `dtype` [..., T], `count` ones, then zeros.
    """
    count = tf.convert_to_tensor(count)
    return tf.cast(tf.range(num_steps, dtype=count.dtype) < count[..., tf.newaxis], dtype)


def certain_presence_logits(count: int, num_steps: int) -> tf.Tensor:
    """Logits of a presence code that has one count: its probability is 1, that of any other 0.

    Args:
        count: 0..T.
        num_steps: T.

    Returns:
        float32 [T].
    """
    present = np.arange(num_steps) < count
    return tf.constant(np.where(present, _CERTAIN_LOGIT, -_CERTAIN_LOGIT), tf.float32)


class PresenceCode(tfd.Distribution):
    """Distribution over unary codes of counts 0..T.

    Events are codes in the dtype of the logits (not integers), so that they multiply objects as they are.
    `log_prob` of anything but a unary code is -inf.  Not reparameterized: use `count_probs` for exact expectations.

    >>> code = PresenceCode([0.0, 0.0])
    >>> [round(float(p), 4) for p in code.count_probs()]
    [0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        logits: Any,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "PresenceCode",
    ) -> None:
        """Initializes the distribution.

        Args:
            logits: floating point [..., T], logit of "step t is present, given that step t - 1 is".
            validate_args: as in `tfd.Distribution`.
            allow_nan_stats: as in `tfd.Distribution`.
            name: name of the operations.

        Raises:
            ValueError: `logits` is a scalar.
        """
        parameters = dict(locals())
        with tf.name_scope(name) as scope:
            self._logits = _presence_logits(logits)
            super().__init__(
                dtype=self._logits.dtype,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def from_count_logits(cls, count_logits: Any, **kwargs: Any) -> PresenceCode:
        """The code whose count has the given unnormalized log-probabilities.

        Args:
            count_logits: floating point [..., T + 1], finite; log-probabilities of counts 0..T up to a constant.
            **kwargs: further arguments of the constructor.

        Returns:
            The distribution with `logits` [..., T], l_t = log P(n >= t) - log P(n = t - 1).
        """
        count_logits = tf.convert_to_tensor(count_logits, dtype_hint=tf.float32)
        at_least = tf.math.cumulative_logsumexp(count_logits, axis=-1, reverse=True)
        return cls(at_least[..., 1:] - count_logits[..., :-1], **kwargs)

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType | None, num_classes: int | None = None
    ) -> dict[str, tfp.util.ParameterProperties]:
        return {"logits": tfp.util.ParameterProperties(event_ndims=1)}

    @property
    def logits(self) -> tf.Tensor:
        """Float [..., T], logit of step t given that step t - 1 is present."""
        return self._logits

    @property
    def num_steps(self) -> int:
        """T, the largest count."""
        return self._logits.shape[-1]

    def presence_log_probs(self) -> tf.Tensor:
        """Float [..., T], log P(n >= t) for t = 1..T."""
        return running_sum(tf.math.log_sigmoid(self._logits))

    def presence_probs(self) -> tf.Tensor:
        """Float [..., T], P(n >= t) for t = 1..T, the probability that step t holds an object."""
        return tf.exp(self.presence_log_probs())

    def count_log_probs(self) -> tf.Tensor:
        """Float [..., T + 1], log P(n = k) for k = 0..T."""
        at_least = self.presence_log_probs()
        stop = tf.math.log_sigmoid(-self._logits)
        zero = tf.zeros_like(at_least[..., :1])
        return tf.concat([zero, at_least], axis=-1) + tf.concat([stop, zero], axis=-1)

    def count_probs(self) -> tf.Tensor:
        """Float [..., T + 1], P(n = k) for k = 0..T; sums to 1."""
        return tf.exp(self.count_log_probs())

    def _event_shape(self) -> tf.TensorShape:
        return self._logits.shape[-1:]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self._logits)[-1:]

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        seed = tfp.random.sanitize_seed(seed, salt="PresenceCode")
        uniform = _uniform(n, self._logits, seed)
        asked = tf.cast(uniform < tf.sigmoid(self._logits), self.dtype)
        return tf.math.cumprod(asked, axis=-1)

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        before = tf.concat([tf.ones_like(value[..., :1]), value[..., :-1]], axis=-1)
        log_prob = tf.reduce_sum(
            tf.math.multiply_no_nan(tf.math.log_sigmoid(self._logits), value)
            + tf.math.multiply_no_nan(tf.math.log_sigmoid(-self._logits), before - value),
            axis=-1,
        )
        is_bit = (value == 0.0) | (value == 1.0)
        is_code = tf.reduce_all(is_bit & (value <= before), axis=-1)
        return tf.where(is_code, log_prob, tf.constant(-np.inf, log_prob.dtype))

    def _mean(self) -> tf.Tensor:
        return self.presence_probs()

    def _variance(self) -> tf.Tensor:
        probs = self.presence_probs()
        return probs * (1.0 - probs)

    def _mode(self) -> tf.Tensor:
        count = tf.argmax(self.count_log_probs(), axis=-1, output_type=tf.int32)
        return code_of_count(count, self.num_steps, self.dtype)

    def _entropy(self) -> tf.Tensor:
        log_probs = self.count_log_probs()
        return -_expectation(log_probs, log_probs)


class RelaxedPresenceCode(tfd.Distribution):
    """The Concrete relaxation of the presence code, in logit space.

    Events are y [T] with independent steps y_t ~ Logistic(loc=l_t / temperature, scale=1 / temperature); sigmoid(y_t)
    is then the binary Concrete variable of step t, and `presence(y)` their running product, the relaxed unary code.
    The density is taken over y, not over sigmoid(y): it and its gradients stay finite where sigmoid(y) rounds to 0 or
    1, at any positive temperature.
    """

    def __init__(
        self,
        temperature: Any,
        logits: Any,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "RelaxedPresenceCode",
    ) -> None:
        """Initializes the distribution.

        Args:
            temperature: floating point, positive, broadcasts with `logits[..., 0]`.
            logits: floating point [..., T], as in `PresenceCode`.
            validate_args: as in `tfd.Distribution`.
            allow_nan_stats: as in `tfd.Distribution`.
            name: name of the operations.

        Raises:
            ValueError: `logits` is a scalar, or a temperature given as a Python number is not positive.
        """
        parameters = dict(locals())
        if isinstance(temperature, (int, float)) and not temperature > 0:
            raise ValueError(f"temperature must be a number above 0, got {temperature!r}.")
        with tf.name_scope(name) as scope:
            self._logits = _presence_logits(logits)
            self._temperature = tf.convert_to_tensor(temperature, dtype=self._logits.dtype)
            super().__init__(
                dtype=self._logits.dtype,
                reparameterization_type=tfd.FULLY_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=parameters,
                name=scope,
            )

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType | None, num_classes: int | None = None
    ) -> dict[str, tfp.util.ParameterProperties]:
        return {
            "temperature": tfp.util.ParameterProperties(
                default_constraining_bijector_fn=tfp.bijectors.Softplus
            ),
            "logits": tfp.util.ParameterProperties(event_ndims=1),
        }

    @property
    def logits(self) -> tf.Tensor:
        """Float [..., T], logit of step t given that step t - 1 is present."""
        return self._logits

    @property
    def temperature(self) -> tf.Tensor:
        """Float [...], the temperature."""
        return self._temperature

    @staticmethod
    def presence(value: tf.Tensor) -> tf.Tensor:
        """The relaxed unary code.

        Args:
            value: float [..., T], an event y.

        Returns:
            float [..., T] in [0, 1], never rising along the steps: prod_{s <= t} sigmoid(y_s).
        """
        return tf.exp(running_sum(tf.math.log_sigmoid(value)))

    def step_log_prob(self, value: tf.Tensor) -> tf.Tensor:
        """Log-density of each step on its own.

        Args:
            value: float [..., T], an event y.

        Returns:
            float [..., T], log p(y_t); `log_prob` is their sum over the steps.
        """
        temperature = self._temperature[..., tf.newaxis]
        standard = temperature * value - self._logits
        return tf.math.log(temperature) - standard - 2.0 * tf.math.softplus(-standard)

    def _event_shape(self) -> tf.TensorShape:
        return self._logits.shape[-1:]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self._logits)[-1:]

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        seed = tfp.random.sanitize_seed(seed, salt="RelaxedPresenceCode")
        temperature = self._temperature[..., tf.newaxis]
        logits = tf.broadcast_to(
            self._logits, tf.broadcast_dynamic_shape(tf.shape(self._logits), tf.shape(temperature))
        )
        uniform = _uniform(n, logits, seed)
        logistic = tf.math.log(uniform) - tf.math.log1p(-uniform)
        return (logits + logistic) / temperature

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.step_log_prob(value), axis=-1)

    def _mean(self) -> tf.Tensor:
        return self._logits / self._temperature[..., tf.newaxis]

    def _variance(self) -> tf.Tensor:
        temperature = self._temperature[..., tf.newaxis]
        return tf.ones_like(self._logits) * (np.pi**2 / 3.0) / temperature**2

    def _default_event_space_bijector(self) -> tfp.bijectors.Bijector:
        return tfp.bijectors.Identity(validate_args=self.validate_args)


def relaxed_kl_estimate(
    posterior: RelaxedPresenceCode, prior: RelaxedPresenceCode, value: tf.Tensor
) -> tf.Tensor:
    """One-sample estimate of the divergence between two relaxed codes.

    A step counts as far as the step before it is present, as in the exact code, where it is never asked otherwise:

        sum_t presence_{t - 1}(y) [log q(y_t) - log p(y_t)],   presence_0 = 1

    Its mean over y ~ q is sum_t E[presence_{t - 1}] KL(q_t || p_t) >= 0.  At equal temperatures KL(q_t || p_t) does
    not depend on the temperature, and is no less than the divergence of the two Bernoulli steps (which are
    functions of y_t): the estimate errs upwards.

    Args:
        posterior: q, batch shape [...].
        prior: p, of a shape that broadcasts with it; temperatures may differ.
        value: float [..., T], a sample of `posterior`.

    Returns:
        float [...], nats.
    """
    present = RelaxedPresenceCode.presence(value)
    before = tf.concat([tf.ones_like(present[..., :1]), present[..., :-1]], axis=-1)
    difference = posterior.step_log_prob(value) - prior.step_log_prob(value)
    return tf.reduce_sum(before * difference, axis=-1)


@tfd.RegisterKL(PresenceCode, PresenceCode)
def _kl_presence_presence(q: PresenceCode, p: PresenceCode, name: str | None = None) -> tf.Tensor:
    """KL(q || p) in nats, the exact sum over the T + 1 counts."""
    with tf.name_scope(name or "kl_presence_presence"):
        q_log_probs = q.count_log_probs()
        return _expectation(q_log_probs, q_log_probs - p.count_log_probs())


def _expectation(log_probs: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """sum_k exp(log_probs_k) values_k, where what has no probability counts nothing, even if infinite."""
    probs = tf.exp(log_probs)
    return tf.reduce_sum(probs * tf.where(probs > 0.0, values, tf.zeros_like(values)), axis=-1)


def _presence_logits(logits: Any) -> tf.Tensor:
    """`logits` as a tensor of rank 1 or more."""
    logits = tf.convert_to_tensor(logits, dtype_hint=tf.float32, name="logits")
    if logits.shape.rank == 0:
        raise ValueError("logits must have shape [..., T], one a step, got a scalar.")
    return logits


def _uniform(n: Any, like: tf.Tensor, seed: Any) -> tf.Tensor:
    """Uniform numbers in (0, 1), `n` times the shape of `like`; never 0, so that their logit is finite."""
    shape = tf.concat([[n], tf.shape(like)], axis=0)
    tiny = like.dtype.as_numpy_dtype(np.finfo(like.dtype.as_numpy_dtype).tiny)
    return tf.random.stateless_uniform(shape, seed, minval=tiny, maxval=1.0, dtype=like.dtype)
