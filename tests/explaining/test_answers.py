"""Programs that use values of tensors in Python: each is traced with the values that an eager run has."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit


def found(fn, vars, index=0):
    """The cause, the operation and the text of the line of the finding of one source."""
    finding = tapekit.explain(fn, vars)[index]
    return finding.cause, finding.op, finding.code


def notes(fn, vars):
    explanation = tapekit.explain(fn, vars)
    assert explanation
    return [*explanation.notes, *(note for finding in explanation for note in finding.notes)]


class Rounds(keras.layers.Layer):
    def build(self, shape):
        self.k = self.add_weight(shape=(), initializer="ones", name="k")

    def call(self, x):
        y = self.k * x
        if tf.reduce_sum(y) > 0.0:
            return tf.round(y)
        return y


class Picks(Rounds):
    def call(self, x):
        y = self.k * x
        if float(tf.reduce_max(y)) > 0.0:
            y = tf.one_hot(tf.argmax(y, -1), 3)
        return y


def test_the_operation_in_the_branch_that_a_layer_takes_is_found():
    x = tf.constant([[1.2, 0.4, 3.0]])
    rounds, picks = Rounds(), Picks()
    rounds(x), picks(x)
    assert found(lambda: tf.reduce_sum(rounds(x)), rounds.trainable_variables)[1:] == ("Round", "return tf.round(y)")
    assert found(lambda: tf.reduce_sum(picks(x)), picks.trainable_variables)[1:] == (
        "ArgMax",
        "y = tf.one_hot(tf.argmax(y, -1), 3)",
    )


def test_the_operation_in_a_loop_over_a_tensor_is_found():
    w = tf.Variable([[0.1, 0.9], [0.7, 0.2]], name="w")

    def rows():
        out = []
        for row in 2.0 * w:
            out.append(tf.cast(tf.argmax(row), tf.float32))
        return tf.add_n(out)

    def signs():
        return tf.add_n([tf.sign(v) * 2.0 for v in tf.unstack(w[0]) if v > -9.0])

    def while_true():
        y = tf.constant(0.0)
        while y < 3.0:
            y = y + tf.math.ceil(w[0, 0])
        return y

    def behind_two_lambdas(step=tf.floor):
        total = 0.0
        for i in range(tf.shape(w)[0]):
            total += step(w[i, 0]) ** 2
        return total

    assert found(rows, w)[1] == "ArgMax"
    assert tapekit.explain(signs, w)[0].status == "zero"
    assert found(signs, w)[1] == "Sign"
    assert found(while_true, w)[1:] == ("Ceil", "y = y + tf.math.ceil(w[0, 0])")
    assert found((lambda: (lambda: behind_two_lambdas())()), w)[1:] == ("Floor", "total += step(w[i, 0]) ** 2")


def test_what_numpy_makes_of_a_value_is_told_at_the_line_that_takes_it():
    w, x = tf.Variable([3.0, 4.0, 1.0], name="w"), tf.Variable([1.0, 2.0, 5.0], name="x")

    def ranks():
        order = np.argsort(w.numpy())
        return tf.reduce_sum(tf.gather(x, order) * [1.0, 2.0, 3.0])

    def spread():
        return tf.reduce_sum(x) / np.std(w)

    def nested():
        return tf.reduce_sum(x) * max(tf.square(w).numpy().tolist())

    assert found(ranks, [w, x]) == ("left_tensorflow", "w.numpy", "order = np.argsort(w.numpy())")
    assert found(spread, [w, x])[:2] == ("left_tensorflow", "np.std")
    assert found(nested, [w, x])[:2] == ("left_tensorflow", ".numpy")
    assert tapekit.explain(nested, [w, x])[0].path.startswith("w -> Square (line ")
    assert all(tapekit.explain(fn, [w, x])[1].status == "ok" for fn in (ranks, spread, nested))


def test_what_is_only_printed_is_no_way_to_the_target(capsys):
    w = tf.Variable([3.2, 4.0], name="w")

    def rounded():
        print(float(tf.reduce_sum(w)))
        return tf.reduce_sum(tf.round(w))

    def unused():
        print(tf.reduce_sum(w).numpy())
        return tf.constant(2.0)

    def logged():
        loss = tf.reduce_sum(w**2)
        print(f"{loss:.3f}")
        return loss

    assert found(rounded, w)[1] == "Round"
    assert found(unused, w)[0] == "left_tensorflow"
    assert "the target is not computed from it" in tapekit.explain(unused, w)[0].why
    assert notes(logged, w) == []
    assert "26.240" in capsys.readouterr().out


def test_a_part_that_is_taken_as_a_number_gets_a_note():
    w = tf.Variable([1.0, -2.0], name="w")

    def penalty():
        size = float(tf.reduce_sum(tf.abs(w)))
        return 0.1 * size + tf.reduce_sum((w - 1.0) ** 4)

    def detached():
        return tf.reduce_sum((w - np.asarray(w * 2.0)) ** 2)

    def scaled():
        return tf.reduce_sum(w**2) * tf.reduce_max(w).numpy()

    for fn, op in ((penalty, "float"), (detached, "np.asarray"), (scaled, ".numpy")):
        (note,) = notes(fn, w)
        assert f"one of the ways from w to the target is cut: no gradient passes {op} on line" in note


def test_a_decision_and_a_shape_get_no_note():
    w = tf.Variable([1.2, -2.0], name="w")

    def straight_through():
        s = tf.custom_gradient(lambda x: (tf.round(x), lambda dy: dy))
        return sum(s(w[i]) ** 2 for i in range(tf.shape(w)[0]))

    def clipped():
        norm = tf.norm(w)
        return tf.reduce_sum(w / norm if float(norm) > 1.0 else w)

    def mean():
        return tf.reduce_sum(w**2) / len(w + 0.0)

    assert [notes(fn, w) for fn in (straight_through, clipped, mean)] == [[], [], []]


def test_a_decorated_function_with_control_flow_is_entered():
    w, zero = tf.Variable([-1.0, -2.0], name="w"), tf.Variable([0.0, 4.0], name="w")

    @tf.function
    def looped(z):
        for _ in tf.range(2):
            z = tf.nn.relu(z)
        return z

    @tf.function
    def branched(z):
        if tf.reduce_sum(z) < 0.0:
            z = tf.clip_by_value(z, 0.0, 1.0)
        return z

    @tf.function
    def rooted(z):
        for _ in tf.range(2):
            z = tf.sqrt(z)
        return z

    assert found(lambda: tf.reduce_sum(looped(w)), w) == ("zero", "Relu", "z = tf.nn.relu(z)")
    assert found(lambda: tf.reduce_sum(branched(w)), w)[2] == "z = tf.clip_by_value(z, 0.0, 1.0)"
    assert found(lambda: tf.reduce_sum(rooted(zero)), zero) == ("nan", "Sqrt", "z = tf.sqrt(z)")


def test_a_branch_in_python_is_the_one_that_an_eager_run_takes():
    w = tf.Variable([3.0, 4.0], name="w")

    def clip():
        value = tf.reduce_sum(w**2)
        if float(value) > 1.0:
            value = tf.clip_by_value(value, 0.0, 1.0)
        return value

    def dead():
        return tf.reduce_sum(tf.nn.relu(-w) if float(w[0]) > 1.0 else w)

    def doubled():
        value = tf.reduce_sum(w)
        while value > 5.0:
            value = tf.minimum(value / 2.0, 1.0)
        return value

    assert found(clip, w)[::2] == ("zero", "value = tf.clip_by_value(value, 0.0, 1.0)")
    assert found(dead, w)[:2] == ("zero", "Relu")
    assert found(doubled, w)[::2] == ("zero", "value = tf.minimum(value / 2.0, 1.0)")


def test_a_variable_made_of_a_tensor_inside_fn_is_found_with_its_way():
    w = tf.Variable(2.0, name="w")
    finding = tapekit.explain(lambda: tf.Variable(w**2) * 3.0, w)[0]
    assert (finding.cause, finding.op) == ("rewrapped", "tf.Variable")
    assert "Pow" in finding.path


def test_a_long_loop_is_told_by_the_line_that_asks():
    w = tf.Variable(0.3, name="w")

    def fn():
        y = tf.constant(0.0)
        while y < 200.0:
            y = y + tf.math.ceil(w)
        return y

    cause, op, line = found(fn, w)
    assert (cause, line) == ("left_tensorflow", "while y < 200.0:")
    assert "y < 200.0" in op  # Python 3.10 does not tell the columns


def test_classes_and_random_state_are_restored():
    w = tf.Variable([1.0, 2.0], name="w")
    classes = [tf.Tensor, *tf.Variable.__subclasses__()]
    before = [dict(vars(each)) for each in classes]
    drawn = []

    def fn():
        drawn.append(np.random.rand())
        return tf.reduce_sum(w) * float(tf.reduce_sum(w)) * bool(w[0] > 0.0)

    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    tapekit.explain(fn, w)
    assert len(drawn) > 2
    assert len({*drawn}) == 1
    assert np.random.rand() == expected
    assert [dict(vars(each)) for each in classes] == before
    with pytest.raises(TypeError):
        tf.function(lambda: float(w[0]), autograph=False)()


def test_threads_that_explain_at_once_restore_the_classes():
    w = tf.Variable([1.0, 2.0], name="w")
    before = dict(vars(tf.Tensor))
    explanations = []

    def explain():
        explanations.append(tapekit.explain(lambda: tf.reduce_sum(w) * float(tf.reduce_max(w)), w))

    for _ in range(3):
        threads = [threading.Thread(target=explain) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert dict(vars(tf.Tensor)) == before
    assert [explanation[0].status for explanation in explanations] == ["ok"] * 12


def test_a_model_predicts_after_predict_was_explained():
    model = keras.Sequential([keras.layers.Dense(1)])
    x = np.ones([2, 3], "float32")
    before = model.predict(x, verbose=0)
    finding = tapekit.explain(
        lambda: tf.reduce_mean(tf.constant(model.predict(x, verbose=0))), model.trainable_variables
    )[0]
    assert (finding.cause, finding.op) == ("left_tensorflow", "model.predict")
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


def test_the_value_in_a_graph_of_its_own_is_not_asked_for():
    w, scale = tf.Variable([1.2, -2.0], name="w"), tf.constant([3.0, 4.0])
    explanation = tapekit.explain(lambda: tf.reduce_sum(tf.map_fn(lambda row: tf.round(row), w)) * float(scale[0]), w)
    assert explanation[0].op == "Round"
    branches = (lambda: w * 2.0 if w[0] > 0.0 else w), (lambda: w)
    assert tapekit.explain(lambda: tf.reduce_sum(tf.cond(w[0] > 0.0, *branches)), w)


def test_a_value_is_told_also_where_fn_catches_the_errors_of_graphs():
    w = tf.Variable([1.0, 2.0], name="w")

    def bare(x):
        try:
            return float(x)
        except:  # noqa: E722  (as users write it)
            return 0.0

    def fallback(x):
        try:
            return float(x)
        except TypeError:
            return x

    assert notes(lambda: tf.reduce_sum(w) * bare(tf.reduce_sum(w)), w) != []
    finding = tapekit.explain(lambda: 0.0 * tf.reduce_sum(w) + fallback(tf.reduce_sum(w)), w)[0]
    assert (finding.status, finding.op) == ("zero", "Mul")


def test_what_numpy_makes_of_several_tensors_is_answered():
    w = tf.Variable([1.2, 2.0], name="w")

    def sick():
        print(np.mean([tf.reduce_sum(w), tf.reduce_max(w)]))
        return tf.reduce_sum(tf.round(w))

    def healthy():
        print(np.array([w[0] * 2.0, w[1]]))
        return tf.reduce_sum(w**2)

    assert found(sick, w)[1] == "Round"
    assert notes(healthy, w) == []


def test_fn_is_not_run_with_numbers_far_from_its_own():
    w, seen = tf.Variable([3.0, 4.0], name="w"), []

    def fn():
        loss = tf.reduce_sum(w**2)
        seen.append(float(loss))
        return loss

    assert notes(fn, w) == []
    np.testing.assert_allclose(seen, 25.0, rtol=2e-3)


def test_a_library_that_tries_to_take_an_index_gets_none():
    inputs = keras.Input([5, 8])
    hidden = keras.layers.Dropout(0.1)(keras.layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs))
    model, runs = keras.Model(inputs, hidden), []

    def fn():
        runs.append(1)
        return tf.reduce_mean(model(tf.ones([2, 5, 8]), training=True) ** 2)

    tapekit.explain(fn, model.trainable_variables)
    assert len(runs) <= 3  # the graph, its numbers, an eager run: none for a value
