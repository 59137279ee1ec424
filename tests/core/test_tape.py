"""GradientTape: all that tf.GradientTape does, and the causes of a None that can be seen from it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit import GradientTape, MissingGradientWarning


@pytest.mark.parametrize("value", [3.0, 3, np.float32(3.0), tf.constant(3.0), tf.Variable(3.0), keras.Variable(3.0)])
def test_anything_can_be_watched_and_watch_returns_what_to_compute_with(value):
    with GradientTape(watch_accessed_variables=False) as tape:
        x = tape.watch(value)
        y = tf.convert_to_tensor(x) ** 2
    assert float(tape.gradient(y, x)) == 6.0


def test_watching_a_structure_returns_it():
    with GradientTape() as tape:
        p = tape.watch({"a": 2.0, "b": [np.float32([1.0, 2.0])]})
        y = p["a"] * tf.reduce_sum(p["b"][0] ** 2)
    grads = tape.gradient(y, p)
    assert float(grads["a"]) == 5.0
    assert grads["b"][0].numpy().tolist() == [4.0, 8.0]


def test_tensors_and_variables_come_back_as_they_are():
    tensor, variable, wrapped = tf.constant(1.0), tf.Variable(1.0), keras.Variable(1.0)
    with GradientTape() as tape:
        a, b, c = tape.watch([tensor, variable, wrapped])
    assert (a is tensor, b is variable, c is wrapped) == (True, True, True)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (object(), "a source is an object. Give a tf.Variable"),
        ([tf.constant(1.0), None], "a source is None. Give a tf.Variable"),
        (keras.Sequential([keras.layers.Dense(1)]), r"a source is a Sequential. Give its variables: \w+.trainable_v"),
    ],
)
def test_what_cannot_be_watched_is_said_with_what_to_give(what, words):
    with GradientTape() as tape, pytest.raises(TypeError, match=rf"GradientTape\.watch: {words}"):
        tape.watch(what)


def test_it_is_a_tf_gradient_tape():
    w = tf.Variable([1.0, 2.0])
    with GradientTape(persistent=True) as tape:
        y = w**2
        with tape.stop_recording():
            tf.exp(w)
        z = tf.reduce_sum(y)
    assert isinstance(tape, tf.GradientTape)
    assert tape.gradient(z, w).numpy().tolist() == [2.0, 4.0]
    assert tape.gradient(y, [w], output_gradients=tf.constant([1.0, 0.0]))[0].numpy().tolist() == [2.0, 0.0]
    assert tape.jacobian(y, w).numpy().tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert tape.watched_variables() == (w,) or tape.watched_variables()[0] is w


def test_without_persistent_it_can_be_asked_once():
    w = tf.Variable(1.0)
    with GradientTape() as tape:
        y = w**2
    tape.gradient(y, w)
    with pytest.raises(RuntimeError, match="persistent"):
        tape.gradient(y, w)


def test_tapes_nest_with_tensorflows():
    with tf.GradientTape() as outer, GradientTape() as inner:
        x = inner.watch(2.0)
        outer.watch(x)
        y = x**3
        slope = inner.gradient(y, x)
    assert float(outer.gradient(slope, x)) == 12.0


def test_reset_forgets_what_was_recorded():
    w = tf.Variable(3.0, name="w")
    with GradientTape() as tape:
        early = w**2
        tape.reset()
        late = w * 1.0
    with pytest.warns(MissingGradientWarning, match="'w': read, but no gradient comes back"):
        assert tape.gradient(early, w) is None
    with GradientTape() as tape:
        tape.reset()
        late = w * 1.0
    assert float(tape.gradient(late, w)) == 1.0


def test_keras_variables_are_taken_everywhere():
    w = keras.Variable([[1.0, 2.0]])
    with GradientTape(persistent=True) as tape:
        y = tf.convert_to_tensor(w) ** 2
    assert tape.gradient(y, [w])[0].numpy().tolist() == [[2.0, 4.0]]
    assert tape.jacobian(y, {"w": w})["w"].shape == (1, 2, 1, 2)
    assert tape.batch_jacobian(y, w).numpy().tolist() == [[[2.0, 0.0], [0.0, 4.0]]]
    unused = keras.Variable([3.0])
    assert tape.gradient(y, unused, unconnected_gradients=tf.UnconnectedGradients.ZERO).numpy().tolist() == [0.0]


def missing(words):
    return pytest.warns(MissingGradientWarning, match=words)


def test_a_source_that_was_never_watched_is_said_to_be():
    x = tf.constant(3.0)
    with GradientTape() as tape:
        y = x * x
    with missing(r"result is None. 'x': a tensor that was never watched. Call tape.watch.*tapekit.explain") as seen:
        assert tape.gradient(y, x) is None
    assert seen[0].filename == __file__


def test_an_integer_source_is_said_to_be():
    w = tf.Variable(3, name="steps")
    with GradientTape() as tape:
        y = tf.cast(w, tf.float32) * 2.0
    with missing("'steps': int32, and only floating-point sources have gradients"):
        assert tape.gradient(y, w) is None


def test_an_untrainable_variable_is_said_to_be():
    w = tf.Variable(3.0, trainable=False, name="frozen")
    with GradientTape() as tape:
        y = w**2
    with missing("'frozen': a variable that this tape does not watch by itself. Call tape.watch"):
        assert tape.gradient(y, w) is None


def test_a_variable_read_only_under_stop_recording_is_said_to_be():
    w = tf.Variable(3.0, name="w")
    with GradientTape() as tape, tape.stop_recording():
        y = w**2
    with missing(r"'w': not read while the tape was recording .*under stop_recording\(\)"):
        assert tape.gradient(y, w) is None


def test_a_variable_that_was_not_read_is_said_to_be():
    w, other = tf.Variable(3.0, name="w"), tf.Variable(2.0)
    with GradientTape() as tape:
        y = other**2
    with missing("'w': not read while the tape was recording"):
        assert tape.gradient(y, [other, w])[1] is None


def test_watching_too_late_is_said_when_the_gradient_is_none():
    x = tf.constant(3.0)
    with GradientTape() as tape:
        y = x * x
        tape.watch(x)
    with missing(r"'x': watched, but the target does not depend on it, or was computed before watch\(\)"):
        assert tape.gradient(y, x) is None


def test_what_was_computed_before_a_reset_is_said_to_be():
    x, w = tf.constant(3.0), tf.Variable(2.0, name="w")
    with GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = w * x
        tape.reset()
    with missing(r"'x': watched, but the target does not depend on it, or was computed before .*reset\(\)"):
        assert tape.gradient(y, x) is None
    with missing(r"'w': not read .*before a reset\(\)"):
        assert tape.gradient(y, w) is None


def test_one_cause_is_told_once_and_a_tensor_is_called_by_the_users_name():
    speed, mass, w = tf.constant(3.0), tf.constant(2.0), tf.Variable(1.0, name="w", trainable=False)
    with GradientTape() as tape:
        y = speed * mass * w
    with missing(
        "result is None. 'speed', 'mass': a tensor that was never watched.*; 'w': a variable that this tape does"
    ) as seen:
        assert tape.gradient(y, [speed, mass, w]) == [None, None, None]
    assert str(seen[0].message).count("never watched") == 1
    with missing("'a', 'b': a tensor that was never watched"):
        GradientTape.gradient(entered(), y, {"a": speed, "b": mass})


def entered():
    with GradientTape() as tape:
        return tape


@pytest.mark.parametrize("decorate", [tf.function, tf.function(jit_compile=True), lambda fn: fn])
def test_the_warning_points_to_the_users_line(decorate):
    w = tf.Variable(0.3, name="w")

    @decorate
    def step():
        with GradientTape() as tape:
            x = tf.constant(2.0)
            y = x * w
        tape.gradient(y, x)  # here
        return tapekit.gradient(lambda: tf.floor(w), w, unconnected="warn")  # and here

    with missing("'x': a tensor that was never watched|no gradient reaches 'w'") as seen:
        assert step() is None
    seen = [warning for warning in seen if warning.category is MissingGradientWarning]
    assert "'x': a tensor" in str(seen[0].message)
    with open(__file__) as file:
        marked = [n for n, line in enumerate(file, 1) if line.rstrip().endswith(("# here", "# and here"))]
    assert [(warning.filename, warning.lineno) for warning in seen] == [(__file__, n) for n in marked]


@pytest.mark.parametrize("value", [np.array(1.0), tf.constant(1.0), [tf.Variable(1.0), 2.0]])
def test_watching_before_the_block_begins_is_an_error_that_shows_the_block(value):
    with pytest.raises(RuntimeError, match=r"the tape is not recording yet.*with tapekit.GradientTape"):
        GradientTape().watch(value)


def test_a_jacobian_that_is_none_is_warned_of_once_at_the_callers_line():
    w, unused = tf.Variable([1.0, 2.0]), tf.Variable(1.0, name="unused")
    with GradientTape(persistent=True) as tape:
        y = w**2
    with missing("GradientTape.jacobian: the result is None. 'unused': not read") as seen:
        assert tape.jacobian(y, [w, unused], experimental_use_pfor=False)[1] is None
    assert [warning.filename for warning in seen] == [__file__]


def test_the_tape_works_under_jit_compile():
    w = keras.Variable(3.0)

    @tf.function(jit_compile=True, autograph=False)
    def step():
        with GradientTape() as tape:
            x = tape.watch(2.0)
            y = x * tf.convert_to_tensor(w) ** 2
        return tape.gradient(y, [x, w])

    assert [float(g) for g in step()] == [9.0, 12.0]


def test_a_missing_gradient_warning_is_a_user_warning():
    assert issubclass(tapekit.MissingGradientWarning, UserWarning)


def test_a_variable_of_a_tape_that_watches_none_is_said_to_be_unwatched():
    v = tf.Variable(2.0)
    with tapekit.GradientTape(watch_accessed_variables=False) as tape:
        y = v * v
    with missing("'v': a variable that this tape does not watch by itself. Call tape.watch"):
        assert tape.gradient(y, v) is None


def test_a_target_computed_behind_the_block_is_a_cause_that_is_named():
    v = tf.Variable(2.0)
    with tapekit.GradientTape() as tape:
        square = v * v
    with missing("or the tape did not record the target"):
        assert tape.gradient(square + 1.0, v) is None


@pytest.mark.parametrize("source", [3.0, np.ones(2), None])
def test_a_source_that_is_no_tensor_is_told_to_be_what_watch_gives(source):
    with tapekit.GradientTape() as tape:
        y = tf.constant(1.0)
    with pytest.raises(TypeError, match=r"GradientTape: a source is .* Give what watch returns: x = tape.watch"):
        tape.gradient(y, source)


def test_a_batch_jacobian_is_of_one_source():
    with tapekit.GradientTape(persistent=True) as tape:
        p, q = tape.watch([tf.ones([4, 3]), tf.ones([4, 3])])
        y = p * q * q
    assert tape.batch_jacobian(y, q).shape == (4, 3, 3)
    with pytest.raises(AttributeError):  # TensorFlow's own
        tape.batch_jacobian(y, [p, q])
