import functools
import logging
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tests.explaining.lost_gradients import HEALTHY, SICK, dense


def line_of(text):
    """The number of the one line of this file that has `text` in it and ends in a mark."""
    with open(__file__) as file:
        found = [n for n, line in enumerate(file, 1) if text in line and line.rstrip().endswith("# here")]
    assert len(found) == 1
    return found[0]


def status_by_tape(fn, vars):
    """The statuses that a plain eager tape gives, every float source watched; variables are put back."""
    variables = [v if isinstance(v, tf.Variable) else getattr(v, "value", None) for v in vars]
    variables = [v for v in variables if isinstance(v, tf.Variable)]
    before = [v.numpy() for v in variables]
    level = tf.get_logger().level
    tf.get_logger().setLevel(logging.ERROR)  # a tape warns of integer targets on the log
    try:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            for source in vars:
                source = source.value if isinstance(source, keras.Variable) else source
                if source.dtype.is_floating:
                    tape.watch(source)
            target = fn(*vars) if fn.__code__.co_argcount > len(fn.__defaults__ or ()) else fn()
        statuses = []
        for source in vars:
            try:
                gradient = tape.gradient(target, source)
            except LookupError:  # no gradient is registered for an operation on the way
                gradient = None
            if gradient is None:
                statuses.append("none")
                continue
            array = tf.convert_to_tensor(gradient).numpy()
            statuses.append("not_finite" if not np.isfinite(array).all() else "ok" if array.any() else "zero")
        return statuses
    finally:
        tf.get_logger().setLevel(level)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def name(program):
    return program.make.__name__


@pytest.mark.parametrize("program", SICK, ids=name)
def test_the_cause_the_op_and_the_line_are_found(program):
    keras.utils.set_random_seed(3)
    fn, vars = program.make()
    explanation = tapekit.explain(fn, vars)
    assert [finding.status for finding in explanation] == status_by_tape(fn, vars)
    assert tuple(finding.cause for finding in explanation) == program.causes
    assert not explanation
    for finding in explanation:
        if finding.status != "ok":
            assert finding.why
            assert finding.advice
            assert program.op in (None, finding.op)
            if program.line():
                assert (finding.file, finding.line) == (program.make.__code__.co_filename, program.line())
                assert finding.code.endswith("# here")


@pytest.mark.parametrize("program", HEALTHY, ids=name)
def test_a_healthy_source_is_never_called_sick(program):
    keras.utils.set_random_seed(3)
    fn, vars = program.make()
    explanation = tapekit.explain(fn, vars)
    assert [finding.status for finding in explanation] == ["ok"] * len(vars)
    assert [(f.cause, f.op, f.line, f.why) for f in explanation] == [(None, None, None, "")] * len(vars)
    assert explanation
    assert status_by_tape(fn, vars) == ["ok"] * len(vars)


def test_the_programs_are_many_and_cover_every_cause_that_explain_gives():
    causes = {cause for program in SICK for cause in program.causes} - {None}
    assert len(SICK) >= 40
    assert causes == {
        "not_used", "outside_tape", "wrong_tensor", "replaced_by_tensor", "rewrapped", "left_tensorflow",
        "integer_dtype", "stateful", "non_differentiable_op", "stop_gradient", "custom_gradient", "zero", "nan",
    }  # fmt: skip


def test_an_explanation_reads_as_a_paragraph_with_the_path_and_the_repair():
    w, b = tf.Variable([0.3, 0.9], name="w"), tf.Variable(2.0, name="b")

    def fn():
        h = w * 4.0
        return b * tf.reduce_sum(tf.round(h))

    first = fn.__code__.co_firstlineno
    assert str(tapekit.explain(fn, [w, b])).splitlines() == [
        "Fine (1 of 2): b.",
        "",
        "w: the gradient is None (non_differentiable_op).",
        f"    test_explaining.py, line {first + 2}:  return b * tf.reduce_sum(tf.round(h))",
        f"    w -> Mul (line {first + 1}) -> Round (line {first + 2}) x",
        "    Why: Round is constant between its jumps, so that its derivative is 0 or missing.",
        "    Instead: If the step is wanted, let the gradient pass by it, x +",
        "        tf.stop_gradient(step(x) - x); if not, leave it out of the loss.",
    ]


def test_sources_with_one_cause_share_a_paragraph_and_a_long_path_is_shortened():
    model = keras.Sequential([dense(4, activation="tanh") for _ in range(6)])
    x = tf.ones([2, 3])
    model(x)
    text = str(tapekit.explain(lambda: tf.reduce_sum(tf.floor(model(x))), model.trainable_variables))
    assert text.count("the gradient is None") == 1
    assert " and 8 more: the gradient is None (non_differentiable_op)" in text
    assert " -> ... -> " in text


def test_a_variable_without_a_name_is_shown_with_that_of_the_python_variable():
    speed = tf.Variable(0.3)
    explanation = tapekit.explain(lambda: tf.floor(speed), speed)
    assert explanation[0].source == "vars"
    assert str(explanation).startswith("speed: the gradient is None")
    assert "speed -> Floor" in str(explanation)
    assert explanation["speed"] is explanation["vars"] is explanation[0]
    assert str(explanation[0]) == str(explanation)


def test_a_tensor_that_a_bare_tape_would_not_watch_is_fine_with_a_note():
    x, frozen = tf.constant(3.0), tf.Variable(2.0, trainable=False, name="frozen")
    explanation = tapekit.explain(lambda: frozen * x**2, [x, frozen])
    assert explanation
    assert "x is a tensor: tapekit watches it, a bare tape needs tape.watch(x)" in str(explanation)
    assert "frozen is not trainable: tapekit watches it" in str(explanation)


def test_the_trace_is_that_of_the_same_calculation():
    w = tf.Variable(0.3, name="w")
    explanation = tapekit.explain(lambda: tf.round(w * 4.0) + w, w)
    assert explanation
    assert [op.type for op in explanation.trace.ops] == ["Mul", "Round", "AddV2"]
    assert tapekit.explain(lambda: tf.constant(float(w)), w).trace is None


def test_an_explanation_is_a_sequence_of_findings_in_the_order_of_vars():
    a, b = tf.Variable(1.0, name="a"), tf.Variable(2.0, name="b")
    explanation = tapekit.explain(lambda: a * 2.0, {"second": b, "first": a})
    assert len(explanation) == 2
    assert [finding.source for finding in explanation] == ["first", "second"]
    assert isinstance(explanation[1], tapekit.Finding)


def test_two_hundred_variables_are_explained_in_one_trace():
    variables = [tf.Variable(float(i), name=f"v{i}") for i in range(200)]
    runs = []

    def fn():
        runs.append(tf.executing_eagerly())
        return tf.round(tf.add_n(variables[:100])) + tf.add_n(variables[50:150])

    explanation = tapekit.explain(fn, variables)
    assert runs == [False]
    assert explanation.trace is explanation.trace
    assert runs == [False, False]  # the trace is made when it is first asked for
    causes = [finding.cause for finding in explanation]
    assert causes == ["non_differentiable_op"] * 50 + [None] * 100 + ["not_used"] * 50


def test_variables_are_put_back_bit_for_bit_also_in_an_eager_run_and_after_an_error():
    w, count = tf.Variable(0.1), tf.Variable(7)
    norm, x = keras.layers.BatchNormalization(), tf.random.normal([4, 2])
    norm(x)
    mean = norm.moving_mean.numpy()

    def fn(leave=tf.identity, stop=False):
        w.assign(w / 3.0)
        count.assign_add(1)
        if stop:
            raise ZeroDivisionError("a mistake in fn")
        return tf.reduce_sum(norm(x, training=True)) * w * leave(w)

    for leave in (tf.identity, float):
        tapekit.explain(lambda leave=leave: fn(leave), w)
        with pytest.raises(ZeroDivisionError, match="a mistake in fn"):
            tapekit.explain(lambda: fn(stop=True), w)
        assert w.numpy() == np.float32(0.1)
        assert count.numpy() == 7
        np.testing.assert_array_equal(norm.moving_mean.numpy(), mean)


@pytest.mark.parametrize("leave", [tf.identity, float], ids=["traced", "eager"])
def test_random_state_is_left_as_found(leave):
    w, seeds = tf.Variable([0.5, 0.5]), keras.random.SeedGenerator(5)

    def fn():
        noise = random.random() + np.random.rand() + tf.random.normal([2]) + keras.random.normal([2], seed=seeds)
        return tf.round(w * noise) * leave(tf.reduce_sum(w))

    def draws():
        keras.utils.set_random_seed(11)
        tf.random.normal([])
        if explained:
            assert tapekit.explain(fn, w)[0].status != "ok" or leave is tf.identity
        state = seeds.state.numpy().tolist()
        return random.random(), np.random.rand(), float(tf.random.normal([])), float(tf.random.normal([])), state

    explained = False
    before = draws()
    explained = True
    assert draws() == before


def test_a_number_that_is_only_printed_does_not_take_the_blame():
    used, unused = tf.Variable(2.0, name="used"), tf.Variable(1.0, name="unused")

    def fn():
        loss = used**2
        float(loss)
        return loss

    assert [finding.cause for finding in tapekit.explain(fn, [used, unused])] == [None, "not_used"]


def test_a_target_that_is_no_tensor_is_a_finding():
    w = tf.Variable(2.0)

    def fn():
        loss = w * 3.0
        return loss.numpy()  # here

    (finding,) = tapekit.explain(fn, w)
    assert (finding.cause, finding.line) == ("left_tensorflow", line_of("return loss.numpy()"))


def test_a_tensor_that_fn_closes_over_is_followed_to_where_it_leaves_tensorflow():
    x = tf.constant([1.0, 2.0])
    (finding,) = tapekit.explain(lambda: tf.constant(tf.reduce_sum(x).numpy()), x)
    assert (finding.status, finding.cause, finding.op) == ("none", "left_tensorflow", ".numpy")
    assert finding.path.startswith("x -> Sum (line ")


def test_the_call_that_leaves_tensorflow_is_told_with_its_index():
    weights = {"{a}": tf.Variable(2.0)}
    (finding,) = tapekit.explain(lambda: tf.constant(2.0) * weights["{a}"].numpy(), weights["{a}"])
    assert finding.op == 'weights["{a}"].numpy'
    assert finding.why.startswith('weights["{a}"].numpy takes the value out of TensorFlow')


def test_a_cast_inside_a_library_call_is_not_told_to_be_left_out():
    embed = keras.layers.Embedding(5, 3)
    embed(tf.zeros([1]))
    (finding,) = tapekit.explain(lambda ids: tf.reduce_sum(embed(ids)), [tf.constant([1.0, 3.0])])
    assert finding.advice.startswith("The call takes whole numbers (an index, a label): leave ids out of vars")


def test_a_variable_of_a_branch_not_taken_is_said_to_be():
    a, b = tf.Variable(2.0), tf.Variable(3.0)
    finding, _ = tapekit.explain(lambda: tf.cond(b > 0.0, lambda: b**2, lambda: a * b), [a, b])
    assert finding.why == "fn reads a only in the branch that it does not take with these numbers"


def test_a_written_state_is_told_with_the_call_that_writes_it():
    step, total = tf.Variable(0.5), tf.Variable([1.0, 2.0])

    def fn():
        total[0].assign(step * 2.0)
        return tf.reduce_sum(total**2)

    (finding,) = tapekit.explain(fn, step)
    assert finding.why.startswith("total[0].assign writes the value into a variable")


def test_cancelling_ways_are_told_apart_from_a_flat_operation():
    w = tf.Variable([1.0, 2.0])
    (finding,) = tapekit.explain(lambda: tf.reduce_sum(w - tf.reduce_mean(w)), w)
    assert "add up to exactly 0" in finding.why
    (finding,) = tapekit.explain(lambda: tf.reduce_sum(tf.nn.relu(-w)), w)
    assert "every input of this ReLU is negative" in finding.why


def test_a_ragged_source_is_explained_too():
    rows = tf.ragged.constant([[1.0, 2.0], [3.0]])
    assert tapekit.explain(lambda r: tf.reduce_sum(r * r), [rows])
    assert tapekit.explain(lambda r: tf.reduce_sum(tf.round(r)), [rows])[0].status == "none"


def test_a_nan_that_comes_in_is_blamed_on_the_data():
    w, x = tf.Variable(2.0, name="w"), tf.constant([1.0, np.nan])
    (finding,) = tapekit.explain(lambda: tf.reduce_sum(w * x), w)
    assert finding.why == "a value that comes in is NaN or infinite already"
    assert finding.advice == "Look at the data, and at w itself, before fn"


def test_a_nan_inside_a_loop_is_not_blamed_on_the_operations_around_it():
    w = tf.Variable([0.0, 2.3])

    def mapped():
        return tf.reduce_sum(tf.map_fn(tf.sqrt, w))

    def looped():
        return tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, y + tf.math.log(w[i])), [0, tf.zeros([])])[1]

    def in_python():
        return tf.reduce_sum(tf.py_function(tf.math.log, [w], tf.float32))

    for fn in (mapped, looped, in_python):
        (finding,) = tapekit.explain(fn, w)
        assert (finding.status, finding.cause) == ("not_finite", "nan")
        assert "becomes NaN or infinite inside" in finding.why


def test_a_nan_in_the_data_of_a_recurrent_layer_is_blamed_on_the_data():
    model, x = keras.Sequential([keras.layers.SimpleRNN(2)]), np.full([1, 3, 2], np.nan, np.float32)
    model(x)
    finding = tapekit.explain(lambda: tf.reduce_mean(model(x)), model.trainable_variables)[0]
    assert finding.why == "a value that comes in is NaN or infinite already"


def test_a_nan_of_a_custom_gradient_is_told_by_its_name():
    @tf.custom_gradient
    def rounded(x):
        return tf.round(x), lambda upstream: upstream * np.inf

    (finding,) = tapekit.explain(lambda w: tf.reduce_sum(rounded(w)), tf.constant([0.3, 0.9]))
    assert (finding.status, finding.op) == ("not_finite", "tf.custom_gradient")
    assert finding.advice.startswith("Let its inner function return a finite gradient")


def test_what_an_eager_run_cannot_measure_is_not_claimed():
    w = tf.Variable([0.0, 1.0], name="w")

    def fn():
        for _ in range(60):  # more values than fn is traced again for
            assert tf.reduce_sum(w) > 0.0
        return tf.reduce_sum(tf.sqrt(w))

    (finding,) = tapekit.explain(fn, w)
    assert finding.why == "at which operation it becomes NaN or infinite could not be measured"
    rows = tf.ragged.constant([[0.0], [1.0, 2.0]])
    assert tapekit.explain(lambda rows: tf.reduce_sum(tf.sqrt(rows)), rows)[0].op == "Sqrt"


def test_a_nan_behind_a_mask_gets_the_double_where_repair():
    x = tf.constant([0.0, 4.0])
    (finding,) = tapekit.explain(lambda x: tf.reduce_sum(tf.where(x > 0.0, 1.0 / x, 0.0)), [x])
    assert finding.op == "RealDiv"
    assert "safe = tf.where(ok, x, 0.5)" in finding.advice
    (finding,) = tapekit.explain(lambda x: tf.reduce_sum(1.0 / x), [x])
    assert "safe" not in finding.advice


def test_of_two_ways_the_one_with_the_nan_is_told():
    w = tf.Variable([0.0, 1.0])

    def fn():
        root = tf.sqrt(w)  # here
        return tf.reduce_sum(root) + tf.reduce_sum(w**2) + tf.reduce_sum(tf.abs(w))

    (finding,) = tapekit.explain(fn, w)
    assert (finding.op, finding.line) == ("Sqrt", line_of("root = tf.sqrt(w)"))


def test_a_stop_gradient_inside_a_library_function_is_named():
    w = tf.Variable([[0.3, 0.9]])

    def fn():
        return tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(tf.stop_gradient(w), tf.ones([1, 2])))

    assert tapekit.explain(fn, w)[0].cause == "stop_gradient"


def test_inside_a_tf_function_explain_says_to_be_called_outside():
    w = tf.Variable(1.0)

    @tf.function
    def step():
        return tapekit.explain(lambda: w * 2.0, w)

    with pytest.raises(RuntimeError, match=r"explain: called inside a tf.function"):
        step()


def test_what_does_not_fit_raises_as_gradient_does():
    with pytest.raises(TypeError, match="explain: fn is a float32 tensor"):
        tapekit.explain(tf.constant(1.0), tf.Variable(1.0))
    with pytest.raises(ValueError, match="explain: vars is empty"):
        tapekit.explain(lambda: 1.0, [])
    with pytest.raises(ZeroDivisionError):
        tapekit.explain(lambda x: 1 / 0, tf.constant(1.0))


def test_what_returns_no_target_is_refused_not_explained():
    w = tf.Variable(1.0)
    for result in (None, [], [w * 2.0, None]):
        with pytest.raises(TypeError, match=r"explain: fn returned .* It must return the target"):
            tapekit.explain(lambda result=result: result, w)


def test_a_ragged_target_and_one_of_several_dtypes_are_explained():
    w = tf.Variable([1.0, 2.0])
    assert tapekit.explain(lambda: tf.RaggedTensor.from_row_lengths(w * 2.0, [1, 1]), w)
    assert tapekit.explain(lambda: [w * 2.0, tf.cast(w, tf.float64)], w)


def test_a_mistake_of_our_own_is_not_taken_for_one_of_fn(monkeypatch):
    def broken(flow):
        raise AttributeError("a mistake in tapekit")

    monkeypatch.setattr(tapekit.explaining.facts.Flow, "ways", broken)
    w = tf.Variable(1.0)
    with pytest.raises(AttributeError, match="a mistake in tapekit"):
        tapekit.explain(lambda: tf.round(w), w)


def test_a_mistake_in_a_custom_gradient_is_raised():
    @tf.custom_gradient
    def doubled(x):
        def grad(dy):
            raise ZeroDivisionError("in the gradient")

        return x * 2.0, grad

    w = tf.Variable(1.0)
    with pytest.raises(ZeroDivisionError, match="in the gradient"):
        tapekit.explain(lambda: doubled(w), w)


def test_a_finding_is_found_by_its_place_or_its_name_and_an_explanation_shows_itself_as_its_text():
    a, b = tf.Variable(0.3, name="a"), tf.Variable(0.3, name="b")
    explanation = tapekit.explain(lambda: a * tf.floor(b), [a, b])
    assert explanation["b"] is explanation[1] is explanation[-1]
    assert repr(explanation) == str(explanation)
    with pytest.raises(KeyError, match=r"Explanation: nothing is called 'c'\. The names are a, b\."):
        explanation["c"]


def test_numpy_handed_over_as_the_function_left_tensorflow():
    (finding,) = tapekit.explain(np.sin, tf.constant([1.0, 2.0]))
    assert (finding.status, finding.cause) == ("none", "left_tensorflow")


def test_a_custom_gradient_that_uses_numpy_backwards_is_fine():
    @tf.custom_gradient
    def sine(x):
        return tf.sin(x), lambda upstream: upstream * np.cos(x)

    assert tapekit.explain(sine, 2.0)


def test_text_is_no_number_to_be_made_a_float():
    (finding,) = tapekit.explain(lambda x: tf.strings.length(x), tf.constant("a"))
    assert "a count or a text, it has no gradient in any case" in finding.advice


def test_a_partial_that_calls_python_is_explained():
    def square(factor):
        return factor * tf.py_function(lambda x: np.square(x), [w], tf.float32)

    w = tf.Variable(3.0, name="w")
    explanation = tapekit.explain(functools.partial(square, 2.0), w)
    assert explanation["w"].cause == "left_tensorflow"


def test_where_an_operation_chooses_a_way_the_gradient_is_lost_on_that_way():
    w, adv = tf.Variable([1.0, 1.2], name="w"), tf.constant([1.0, 2.0])

    def ppo():
        ratio = tf.exp(w)
        clipped = tf.clip_by_value(ratio, 0.8, 1.2)
        return -tf.reduce_mean(tf.minimum(ratio * adv, clipped * adv))

    def gate():
        dead = tf.nn.relu(w - 9.0)
        return tf.reduce_sum(tf.minimum(w, dead))

    def chosen():
        flat = tf.clip_by_value(w, 5.0, 6.0)
        return tf.reduce_sum(tf.where(w > 0.0, flat, w))

    codes = [tapekit.explain(fn, w)[0].code for fn in (ppo, gate, chosen)]
    assert codes == [
        "clipped = tf.clip_by_value(ratio, 0.8, 1.2)",
        "dead = tf.nn.relu(w - 9.0)",
        "flat = tf.clip_by_value(w, 5.0, 6.0)",
    ]


@tf.custom_gradient
def log1pexp(x):
    e = tf.exp(x)
    return tf.math.log(1.0 + e), lambda upstream: upstream * (1.0 - 1.0 / (1.0 + e))


@tf.custom_gradient
def reversed_gradient(x):
    return tf.identity(x), lambda upstream: -upstream


@tf.custom_gradient
def clipped(x):
    return tf.square(x), lambda upstream: tf.clip_by_value(upstream, -1.0, 1.0)


@pytest.mark.parametrize("function", [log1pexp, reversed_gradient, clipped, tf.recompute_grad(tf.square)])
def test_what_a_custom_gradient_computes_inside_is_no_way_that_is_cut(function):
    w = tf.Variable([0.5, 2.0], name="w")
    explanation = tapekit.explain(lambda: tf.reduce_sum(function(w)), w)
    assert explanation
    assert [explanation.notes, explanation[0].notes] == [(), ()]


def test_a_mistake_after_an_inner_gradient_that_is_none_is_raised():
    w, c = tf.Variable(2.0), tf.constant(3.0)

    def fn():
        with tf.GradientTape() as tape:
            inner = w**2
        gradient, missing = tape.gradient(inner, [w, c])
        assert missing is None
        return undefined * gradient  # noqa: F821

    with pytest.raises(NameError, match="undefined"):
        tapekit.explain(fn, w)


def test_a_source_under_a_strategy_is_not_said_to_be_missing_in_vars():
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        w = tf.Variable([1.0, 2.0], name="w")
    explanation = tapekit.explain(lambda: tf.reduce_sum(w**2), w)
    assert explanation
    assert explanation.notes == ()
