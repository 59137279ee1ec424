"""Values that fn uses in Python: where the target is computed from them, a trace is refused at the line."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from tapekit import trace
from tapekit.graphs import LeftTensorFlow


@pytest.mark.parametrize(
    "make",
    [lambda w: tf.Variable(w * 2.0), lambda w: tf.Variable(w), lambda w: tf.Variable(tf.stack([w, w]))],
    ids=["result", "variable", "stack"],
)
def test_a_variable_made_of_a_source_is_refused_at_its_line(make):
    w = tf.Variable(2.0)
    with pytest.raises(LeftTensorFlow, match=r"trace: fn leaves TensorFlow at .*test_values.py.*tf\.Variable"):
        trace(lambda: tf.reduce_sum(make(w)), [w])


def test_a_float_through_which_an_eager_tape_has_no_gradient_is_refused():
    w = tf.Variable(3.0)

    def all_of_it():
        return tf.square(float(w))

    def a_part():
        return w * float(w)

    for fn in (all_of_it, a_part):
        with pytest.raises(LeftTensorFlow, match=r"fn leaves TensorFlow at .*float\(w\)"):
            trace(fn, [w])


def test_what_is_only_printed_or_decides_is_no_part_of_the_trace(capsys):
    x, steps = tf.constant([[0.3, -0.2]]), [0]
    cell = tf.keras.layers.GRU(2)
    cell(x[None])
    w = cell.trainable_variables[0]
    noise = np.random.default_rng(0)

    def printed():
        loss = tf.reduce_sum(cell(x[None]))
        print(f"{float(loss):.1f}")
        return loss

    def swish():
        loss = tf.reduce_sum(tf.nn.swish(w))
        return loss if np.isfinite(loss.numpy()) else 0.0 * loss

    def counted():
        steps[0] += 1
        loss = tf.reduce_sum(w * float(noise.normal()))
        if steps[0] % 2:
            print("loss", float(loss))
        return loss

    def of_several():
        a, b = tf.reduce_sum(w), tf.reduce_sum(w**2)
        print(np.mean([a, b]))
        return a * b

    def by_key():
        names = {0: 2.0, 1: 3.0}
        return names[tf.argmax([1.0, 5.0]).numpy()] * tf.reduce_sum(w)

    for fn in (printed, swish, counted, of_several, by_key):
        assert trace(fn, w).sources[0].gradient is not None
    assert trace(by_key, w).sources[0].gradient.flat[0] == 3.0


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float32, tf.complex64])
def test_a_number_counts_in_every_dtype(dtype):
    w = tf.Variable(tf.cast([1.5, 2.0], dtype))
    with pytest.raises(LeftTensorFlow, match=r"at .*test_values.py"):
        trace(lambda: tf.reduce_sum(w) * tf.reduce_sum(w).numpy(), w)


def test_a_draw_that_decides_is_the_one_of_the_trace():
    w = tf.Variable([1.0, 2.0, 3.0])

    def masked():
        mask = tf.cast(tf.random.uniform([3]) > 0.7, tf.float32)
        count = tf.reduce_sum(mask)
        return tf.reduce_sum(w * mask) / count if count > 0.0 else tf.reduce_sum(w)

    for _ in range(10):
        assert np.isfinite(trace(masked, w).sources[0].gradient).all()


def test_a_number_counts_also_where_fn_writes_to_the_output_itself(capsys):
    w = tf.Variable([1.0, 2.0])

    def fn():
        sys.stdout.write("step\n")
        sys.stdout.flush()
        return tf.reduce_sum(w) * float(tf.reduce_sum(w))

    with pytest.raises(LeftTensorFlow, match=r"at .*test_values.py"):
        trace(fn, w)
    assert capsys.readouterr().out
