import keras
import numpy as np
import pytest
import tensorflow as tf

from tapekit._sources import bind
from tapekit.graphs import capture
from tapekit.graphs.recording import reason


def gradients(fn, vars):
    """The gradients of the graph, as arrays."""
    return capture(bind("here", fn, vars), lambda recording: recording.gradients(recording.sources))[1]


def test_values_and_gradients_come_from_one_run_and_variables_keep_their_values():
    w, count = tf.Variable(3.0), tf.Variable(0)

    def fn():
        count.assign_add(1)
        return w * tf.random.normal([])

    def ask(recording):
        return recording.target, recording.gradients(recording.sources)

    _, (value, (gradient,)) = capture(bind("here", fn, [w]), ask)
    np.testing.assert_allclose(value, 3.0 * gradient, rtol=1e-6)
    assert count.numpy() == 0


@pytest.mark.parametrize("size", [2, 1000], ids=["embedded", "captured"])
def test_what_was_there_before_is_told_with_where_it_enters(size):
    w, x = tf.Variable(tf.ones([size])), tf.ones([size])
    recording, _ = capture(bind("here", lambda: tf.reduce_sum(w * x), [w]), lambda recording: recording.target)
    assert {id(outside) for _, outside in recording.captured()} >= {id(w)}
    assert any(op.type == "Mul" for op in recording.ops)


def test_a_variable_made_inside_is_made_once_and_filled():
    w = tf.Variable([1.0, 2.0])

    def fn():
        total = tf.Variable(tf.zeros([2]))
        total[0].assign(3.0)
        return tf.reduce_sum(w * total)

    np.testing.assert_array_equal(gradients(fn, [w])[0], [3.0, 0.0])


def test_python_that_decides_by_a_value_is_traced_with_it():
    w = tf.Variable([1.0, 2.0, 3.0])

    def with_len():
        z = 2.0 * w
        return tf.reduce_sum(z) / len(z)

    def with_range():
        total = tf.constant(0.0)
        for row in range(tf.shape(w)[0]):
            total += w[row] ** 2
        return total

    def with_float_in_an_if():
        loss = tf.reduce_sum(w)
        return 2.0 * loss if float(loss) > 0 else loss

    np.testing.assert_allclose(gradients(with_len, [w])[0], [2 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(gradients(with_range, [w])[0], [2.0, 4.0, 6.0])
    np.testing.assert_allclose(gradients(with_float_in_an_if, [w])[0], [2.0, 2.0, 2.0])


def test_a_mistake_of_fn_is_raised_as_it_is():
    w = tf.Variable([1.0, 2.0])
    with pytest.raises(ZeroDivisionError):
        gradients(lambda: w * (1 / 0), [w])
    with pytest.raises(ValueError, match="Dimensions must be equal"):
        gradients(lambda: w + tf.ones([3]), [w])


def test_parts_of_several_dtypes_and_ragged_parts_are_one_target():
    w = tf.Variable([1.0, 2.0])
    np.testing.assert_array_equal(gradients(lambda: [w * 2.0, tf.cast(w, tf.float64)], [w])[0], [3.0, 3.0])
    ragged = gradients(lambda: tf.RaggedTensor.from_row_lengths(w * 3.0, [1, 1]), [w])
    np.testing.assert_array_equal(ragged[0], [3.0, 3.0])


def test_the_reason_of_a_layer_s_error_is_kept():
    class Broken(keras.layers.Layer):
        def call(self, x):
            raise ValueError("the labels have 3 columns. They need 4.")

    with pytest.raises(ValueError, match="Exception encountered") as caught:
        Broken()(tf.ones([2, 2]))
    assert reason(caught.value) == "the labels have 3 columns"
    assert reason(ValueError("one thing. Another.")) == "one thing"
