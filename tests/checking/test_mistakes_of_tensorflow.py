"""Gradients that are wrong in TensorFlow 2.21: what it gives, and what is true. A failure says that one is mended."""

import numpy as np
import pytest
import tensorflow as tf

from tapekit import gradient, jacobian
from tapekit.checking import check_gradient

# The operation, the point, what TensorFlow gives, what is true.
FIRST = {
    "xlogy": (
        lambda x: tf.math.xlogy(x, tf.constant([2.0, 2.0], x.dtype)),
        [0.0, 0.5],
        [0, np.log(2)],
        [np.log(2)] * 2,
    ),
    "cumprod": (tf.math.cumprod, [2.0, 3.0, 0.0], [4, 2, 0], [4, 2, 6]),
    "complex cumprod": (
        lambda z: tf.math.real(tf.math.cumprod(z)[1]),
        [1 + 2j, 3 - 1j],
        [3 - 1j, 1 + 2j],
        [3 + 1j, 1 - 2j],  # the conjugates of the factors, as for tf.math.real(z[0] * z[1])
    ),
    # the gradient of the real part of z by z is 1
    "complex det": (lambda z: tf.math.real(tf.linalg.det(tf.reshape(z, [1, 1]))), [1 + 2j], [-0.6 + 0.8j], [1 + 0j]),
    "bessel_i1": (tf.math.bessel_i1, [0.0, 1e-8], [1, 0.5], [0.5, 0.5]),
}
SECOND = {
    "reduce_prod": (tf.reduce_prod, [0.0, 1.0], [[0, 1], [0, 0]], [[0, 1], [1, 0]]),
    "segment_prod": (lambda x: tf.math.segment_prod(x, [0, 0]), [0.0, 0.0], [[0, 0], [0, 0]], [[0, 1], [1, 0]]),
    # spence'(x) = -log(x) / (x - 1) = -1 + (x - 1) / 2 - ...
    "spence": (lambda x: tf.math.special.spence(x)[0], [1.0], [[np.nan]], [[0.5]]),
}


def constant(x):
    return tf.constant(x, tf.complex128 if np.iscomplexobj(x) else tf.float64)


@pytest.mark.parametrize("name", FIRST)
def test_a_wrong_gradient_of_tensorflow_is_as_it_was_and_is_caught(name):
    fn, x, given, true = FIRST[name]
    np.testing.assert_allclose(gradient(fn, constant(x)), given, rtol=1e-7)
    check = check_gradient(fn, constant(x))
    assert check.verdict == "fail", str(check)
    right = tf.custom_gradient(lambda x: (fn(x), lambda dy: tf.reduce_sum(tf.cast(dy, x.dtype)) * constant(true)))
    if tf.size(fn(constant(x))) == 1:
        check_gradient(right, constant(x)).raise_if_failed()


@pytest.mark.parametrize("name", SECOND)
def test_a_wrong_second_derivative_of_tensorflow_is_as_it_was_and_is_caught(name):
    fn, x, given, true = SECOND[name]
    hessian = jacobian(lambda x: gradient(fn, x), constant(x), unconnected="zero")
    np.testing.assert_allclose(hessian, given)
    assert check_gradient(fn, constant(x))
    check = check_gradient(fn, constant(x), order=2)
    assert (check.verdict, check.order) == ("fail", 2)
    # differences of the gradient itself give what is true
    step = 1e-6
    rows = [gradient(fn, constant(x) + step * e) - gradient(fn, constant(x) - step * e) for e in np.eye(len(x))]
    np.testing.assert_allclose(np.array(rows) / (2 * step), true, atol=1e-4)


@pytest.mark.parametrize("order", [1, 2])
def test_bessel_functions_at_0_are_caught_by_the_order_in_which_they_are_wrong(order):
    fn = {1: tf.math.bessel_i1, 2: tf.math.bessel_i0}[order]
    assert check_gradient(fn, constant([0.0, 0.8]), order=order).verdict == "fail"
