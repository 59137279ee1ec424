import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit import trace
from tapekit.graphs.places import short


def number(value):
    return pytest.approx(value, rel=1e-5)


def check_edges(found):
    """What flows back along the edges out of a record adds up to its gradient, which is the tape's own."""
    arrived = {}
    for op in found.ops:
        assert len(op.inputs) == len(op.contributions) == len(op.local)
        for name, flow in zip(op.inputs, op.contributions, strict=True):
            if flow is not None:
                arrived.setdefault(name, []).append(np.asarray(flow))
    for op in (*found.ops, *found.sources):
        if op is not found.target and op.gradient is not None and op.name in arrived:
            total = sum(arrived.pop(op.name))
            assert total.shape == op.shape
            np.testing.assert_allclose(total, op.gradient, rtol=1e-4, atol=1e-6)
    assert not arrived  # nothing flows to where no gradient is


def test_the_circuit_of_cs231n_has_its_published_values_and_gradients():
    circuit = trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
    assert [(op.name, op.type, op.inputs) for op in circuit.ops] == [
        ("add", "AddV2", ("x", "y")),
        ("mul", "Mul", ("add", "z")),
    ]
    assert (circuit["add"].value, circuit["add"].gradient) == (3, -4)
    assert (circuit.target.value, circuit.target.gradient) == (-12, 1)
    assert [source.gradient for source in circuit.sources] == [-4, -4, 3]
    assert circuit["mul"].local == (-4, 3)
    assert circuit["mul"].contributions == (-4, 3)
    assert circuit["add"].contributions == (-4, -4)


def test_every_gradient_of_the_sigmoid_neuron_is_the_one_worked_out_by_hand():
    def neuron(w0, w1, w2, x0, x1):
        return 1 / (1 + tf.exp(-(w0 * x0 + w1 * x1 + w2)))

    found = trace(neuron, [2.0, -3.0, -3.0, -1.0, -2.0])
    dot = 2 * -1 + -3 * -2 - 3
    exp = np.exp(-dot)
    above = -1 / (1 + exp) ** 2  # d (1 / u) / du = -1 / u^2
    back = -exp * above  # through exp and the minus sign
    by_type = {op.type: op for op in found.ops}
    assert found.target.value == number(0.7310586)
    assert by_type["RealDiv"].local[1] == number(above)
    assert by_type["Exp"].gradient == number(above)
    assert by_type["Neg"].gradient == number(exp * above)
    assert [op.gradient for op in found.ops if op.type == "Mul"] == [number(back)] * 2
    gradients = [source.gradient for source in found.sources]
    assert gradients == [number(back * other) for other in (-1, -2, 1, 2, -3)]
    assert np.round(gradients, 2).tolist() == pytest.approx([-0.20, -0.39, 0.20, 0.39, -0.59])
    assert [(c.type, c.value, c.gradient) for c in found.constants] == [("Constant", 1, None)] * 2
    check_edges(found)


def test_relu_of_a_line_squared_passes_fourteen_down():
    w, b = tf.Variable(3.0, name="w"), tf.Variable(1.0, name="b")
    found = trace(lambda: tf.square(tf.nn.relu(w * 2.0 + b)), [w, b])
    assert [(op.value, op.gradient) for op in found.ops] == [(6, 14), (7, 14), (7, 14), (49, 1)]
    assert found["w"].gradient == 28


def test_mazurs_network_has_its_published_error_and_gradients():
    inputs, targets = tf.constant([[0.05, 0.10]]), tf.constant([[0.01, 0.99]])
    first = tf.Variable([[0.15, 0.25], [0.20, 0.30]], name="first")
    second = tf.Variable([[0.40, 0.50], [0.45, 0.55]], name="second")

    def error():
        hidden = tf.sigmoid(inputs @ first + 0.35)
        return tf.reduce_sum(0.5 * (targets - tf.sigmoid(hidden @ second + 0.60)) ** 2)

    found = trace(error, [first, second])
    assert found.target.value == pytest.approx(0.298371109, abs=1e-8)
    assert found["second"].gradient[0, 0] == pytest.approx(0.082167041, abs=1e-8)
    assert found["first"].gradient[0, 0] == pytest.approx(0.000438568, abs=1e-8)
    check_edges(found)


def test_a_value_used_twice_gets_the_sum_of_both_edges():
    found = trace(lambda x: x * x + tf.sin(x), 2.0)
    assert found["mul"].inputs == ("x", "x")
    assert found["mul"].contributions == found["mul"].local == (2, 2)
    assert found["x"].gradient == number(4 + np.cos(2.0))
    check_edges(found)
    difference = trace(lambda x: x - x, 2.0)
    assert difference["sub"].contributions == (1, -1)


def test_a_nested_jit_compiled_function_is_seen_inside():
    @tf.function(jit_compile=True)
    def inner(x):
        return tf.tanh(x) * 2.0

    was = tf.config.functions_run_eagerly()
    found = trace(lambda x: inner(x) ** 2, 0.5)
    assert [op.type for op in found.ops] == ["Tanh", "Mul", "Pow"]
    assert found["Tanh"].code == "return tf.tanh(x) * 2.0"
    assert tf.config.functions_run_eagerly() == was


def test_loops_and_branches_are_one_operation_each():
    found = trace(lambda x: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * x), (0, x))[1], 2.0)
    assert [(op.name, op.value, op.gradient) for op in found.ops] == [("while", 16, 1)]
    assert found["x"].gradient == 32
    both = trace(
        lambda v: tf.reduce_sum(
            sum(tf.while_loop(lambda i, a, b: i < 3, lambda i, a, b: (i + 1, a * v, b + a), (0, v, v))[1:])
        ),
        tf.constant([1.0, 2.0]),
    )
    check_edges(both)
    branch = trace(lambda x: tf.cond(x > 0, lambda: x * 3.0, lambda: x), 2.0)
    assert [op.name for op in branch.ops] == ["Greater", "cond"]
    assert branch["cond"].contributions == (None, 3)
    assert trace(lambda x: sum(x * float(i) for i in range(3)), 2.0)["x"].gradient == 3


def test_a_python_if_or_loop_on_a_tensor_is_traced_as_an_eager_run_takes_it():
    def steep(x):
        if x > 0:
            return x * 5.0
        return x

    @tf.function
    def nested(x):
        for _ in tf.range(3):
            x = x * 2.0
        return x

    assert trace(steep, 2.0)["x"].gradient == 5
    assert trace(steep, -2.0)["x"].gradient == 1
    assert trace(lambda x: x * sum(tf.stack([x, x])), 3.0)["x"].gradient == 12
    assert trace(nested, 2.0)["x"].gradient == 8


@pytest.mark.parametrize("depth", [None, 1])
def test_contributions_add_up_in_many_programs(depth):
    v, m = tf.Variable([1.0, 2.0, 3.0], name="v"), tf.Variable(tf.reshape(tf.range(9.0), [3, 3]) / 7, name="m")
    table = tf.Variable(tf.reshape(tf.range(30.0), [10, 3]) / 11, name="table")
    cell = keras.layers.LSTM(3, unroll=True)
    sequence = tf.reshape(tf.range(24.0), [2, 4, 3]) / 13
    cell(sequence)
    programs = [
        (lambda: tf.reduce_sum(tf.gather(table, [1, 1, 2]) ** 2) + tf.reduce_sum(table[2]), [table]),
        (lambda: sum(map(tf.reduce_sum, tf.nn.moments(m @ m, [0]))), [m]),
        (lambda: tf.reduce_sum(tf.split(m, 3)[0] * tf.split(m, 3)[1] + m[0]), [m]),
        (lambda: tf.reduce_sum(tf.where(v > 1.5, v, v * 2)), [v]),
        (lambda: tf.reduce_sum(tf.map_fn(lambda t: t * t, v) * v), [v]),
        (lambda: tf.reduce_sum(tf.scan(lambda a, t: a * t, v) + v), [v]),
        (lambda: tf.reduce_sum(tf.random.normal([3]) * v * v), [v]),
        (lambda: [v * 2, m * m], [v, m]),
        (lambda: tf.reduce_sum(cell(sequence)), cell.trainable_variables),
    ]
    for fn, sources in programs:
        found = trace(fn, sources, depth=depth)
        check_edges(found)
        check_edges(found.fold())


def test_gradients_are_those_of_the_tape():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
    data = tf.constant([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
    with tf.GradientTape() as tape:
        target = tf.reduce_sum(model(data) ** 2)
    expected = tape.gradient(target, model.trainable_variables)
    for depth in (None, 1):
        found = trace(lambda: tf.reduce_sum(model(data) ** 2), model.trainable_variables, depth=depth)
        for source, gradient in zip(found.sources, expected, strict=True):
            np.testing.assert_allclose(source.gradient, gradient, rtol=1e-5, atol=1e-6)  # sums of float32 of size 1


def test_an_embedding_used_twice_in_a_row_has_a_dense_gradient():
    table = tf.Variable(tf.ones([4, 2]), name="table")
    found = trace(lambda: tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 1])), table)
    assert found["table"].gradient.tolist() == [[0, 0], [2, 2], [0, 0], [0, 0]]


def test_the_gradient_stops_where_an_operation_has_none():
    v = tf.Variable([1.0, 2.0, 3.0], name="v")
    found = trace(lambda: tf.reduce_sum(tf.cast(tf.argmax(v * 2), tf.float32) * v), v)
    assert [op.type for op in found.ops] == ["Mul", "ArgMax", "Cast", "Mul", "Sum"]
    assert found["mul"].gradient is None
    assert found["ArgMax"].contributions == (None,)
    assert found["Cast"].gradient == 6
    image = tf.random.stateless_uniform([2, 2, 3], [1, 2])
    hue = trace(lambda x: tf.reduce_sum(tf.image.adjust_hue(x, 0.1) + x), image)  # it has no registered gradient
    assert hue["adjust_hue/AdjustHue"].contributions[0] is None
    assert np.all(hue["x"].gradient == 1)


def test_what_the_target_does_not_use_has_no_gradient():
    v, unused = tf.Variable(2.0, name="v"), tf.Variable(1.0, name="unused")
    found = trace(lambda: v * 2.0, [v, unused])
    assert found["unused"].gradient is None
    assert trace(lambda: tf.constant(3.0), v).target.value == 3
    assert trace(lambda: v, v).target.name == "v"


def test_a_variable_that_is_no_source_is_a_constant_by_its_name():
    v, other = tf.Variable(2.0, name="v"), tf.Variable(5.0, name="other")
    found = trace(lambda: v * other + other, v)
    assert [(c.name, c.type, c.value, c.gradient) for c in found.constants] == [("other", "Variable", 5, None)]
    assert found["mul"].inputs == ("v", "other")
    assert found["mul"].contributions == (5, None)


def keras_model():
    return keras.Sequential(
        [
            keras.Input([3]),
            keras.layers.Dense(4, "relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(2, name="out"),
        ]
    )


def test_depth_one_is_a_chain_of_layers_with_the_signal_at_each_boundary():
    model = keras_model()
    data = tf.random.stateless_normal([8, 3], [1, 2])
    found = trace(lambda: tf.reduce_mean(model(data, training=True) ** 2), model.trainable_variables, depth=1)
    assert [op.name.split("/")[-1] for op in found.ops] == ["hidden", "norm", "drop", "out", "pow", "Mean"]
    layers = [op.name for op in found.ops[:4]]
    assert [layer in op.inputs for layer, op in zip(layers, found.ops[1:], strict=False)] == [True] * 4
    assert found.ops[0].shape == found.ops[0].gradient.shape == (8, 4)
    whole = trace(lambda: tf.reduce_mean(model(data, training=True) ** 2), model.trainable_variables)
    last = [op for op in whole.ops if op.scope == layers[0]][-1]
    np.testing.assert_allclose(found.ops[0].gradient, last.gradient, rtol=1e-4, atol=1e-6)
    assert [(op.name, op.inputs) for op in whole.fold().ops] == [(op.name, op.inputs) for op in found.ops]
    check_edges(found)


def test_layers_and_scopes_are_called_as_their_author_calls_them():
    shared, inputs = keras.layers.Dense(3, name="shared"), keras.Input([3])
    twice = keras.Model(inputs, shared(shared(inputs)), name="twice")
    inner = keras.Sequential([keras.Input([3]), keras.layers.Dense(3, name="a"), keras.layers.Dense(3, name="b")])
    inner.name = "inner"
    outer = keras.Sequential([keras.Input([3]), inner, keras.layers.Dense(1, name="c")], name="outer")

    def scopes(x):
        for _ in range(2):
            with tf.name_scope("block"):
                x = tf.sin(x * x)
        return x

    def names(fn, depth):
        return [op.name for op in trace(fn, tf.ones([2, 3]), depth=depth).ops]

    assert names(twice, 1) == ["twice/shared", "twice/shared (2)"]
    assert names(outer, 1) == ["outer/inner", "outer/c"]
    assert names(outer, 2) == ["outer/inner/a", "outer/inner/b", "outer/c"]
    assert names(scopes, 1) == ["block", "block_1"]


def test_folding_leaves_operations_outside_of_scopes_as_they_are():
    square = trace(lambda x: x * x, 2.0, depth=1)["mul"]
    assert (square.type, square.inputs, square.contributions, square.local) == ("Mul", ("x", "x"), (2, 2), (2, 2))


def test_variables_and_random_state_are_left_as_they_were():
    model = keras_model()
    data = tf.random.stateless_normal([8, 3], [1, 2])
    counter = tf.Variable(1, name="counter")
    assigned = tf.Variable(1.0, name="assigned")

    def loss():
        counter.assign_add(1)
        assigned.assign(7.0, read_value=False)
        return tf.reduce_mean(model(data, training=True) ** 2)

    before = [v.numpy() for v in model.variables]
    tf.random.set_seed(3)
    expected = tf.random.normal([2]).numpy()
    tf.random.set_seed(3)
    trace(loss, model.trainable_variables)
    assert tf.random.normal([2]).numpy().tolist() == expected.tolist()
    assert (counter.numpy(), assigned.numpy()) == (1, 1)
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value)


def test_variables_are_put_back_when_the_run_fails():
    v = tf.Variable(2.0, name="v")

    def fails():
        v.assign(5.0)
        tf.debugging.assert_less(v, 3.0)
        return v * 2.0

    with pytest.raises(tf.errors.InvalidArgumentError):
        trace(fails, v)
    assert v.numpy() == 2


def test_an_assignment_is_seen_by_the_reads_after_it():
    v = tf.Variable(2.0, name="v")

    def program():
        first = v * 10.0
        v.assign(3.0)
        return first + v

    assert trace(program, v).target.value == 23


def test_values_and_gradients_belong_to_the_same_random_draw():
    v = tf.Variable(tf.ones([5]), name="v")
    found = trace(lambda: tf.reduce_sum(tf.random.normal([5]) * v), v)
    assert found["v"].gradient.tolist() == found["mul"].value.tolist()


def test_the_table_shows_each_operation_and_its_line():
    circuit = trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
    lines = str(circuit).splitlines()
    assert lines[0].split() == ["op", "from", "value", "gradient", "source", "line"]
    assert re.search(r"^mul +add, z +-12 +1 +test_tracing.py:\d+  circuit = trace\(", lines[-1])
    assert len({line.find("test_tracing.py") for line in lines[-2:]}) == 1
    tensors = str(trace(lambda v: tf.reduce_sum(v), np.array([1.0, 3.0])))
    assert "[2] mean 2 min 1 max 3 norm 3.162" in tensors


def test_each_operation_knows_the_line_that_made_it():
    def helper(x):
        return tf.sin(x)

    found = trace(lambda x: helper(x) * 2.0, 1.0)
    assert found["Sin"].file == __file__
    assert found["Sin"].code == "return tf.sin(x)"
    assert found["Sin"].line == helper.__code__.co_firstlineno + 1


def test_a_trace_can_be_pickled():
    circuit = pickle.loads(pickle.dumps(trace(lambda x, y: x * tf.floor(y), [2.0, 5.5])))
    assert circuit["mul"].contributions == (5, 2)


@pytest.mark.parametrize("depth", [0, -1, "1", 1.0])
def test_a_depth_is_a_whole_number(depth):
    for call in (lambda: trace(lambda x: x * 2.0, 1.0, depth=depth), lambda: trace(tf.square, 1.0).fold(depth)):
        with pytest.raises(ValueError, match=r"trace: depth is .*\. It is the number of scopes to look into"):
            call()


def test_text_on_the_way_is_shown():
    found = trace(lambda x: tf.strings.to_number(tf.strings.as_string(x, precision=1)) * x, 2.0)
    assert found["AsString"].value == b"2.0"
    assert re.search(r"^AsString +x +b'2.0' +none ", str(found), re.MULTILINE)


def test_a_variable_of_a_strategy_is_traced_outside_its_scope_and_in_a_replica():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        v = tf.Variable(3.0, name="v")
        with pytest.raises(
            RuntimeError, match=r"trace: source 'v' has a value on each replica. .* inside strategy.run"
        ):
            trace(lambda: v * v, v)
    assert trace(lambda: v * v, v)["v"].gradient == 6
    assert strategy.run(lambda: trace(lambda: v * v, v))["v"].gradient == 6


def test_an_unknown_name_says_where_the_names_are():
    with pytest.raises(KeyError, match=r"no record is called 'q'. Give a name that print\(trace\) shows"):
        trace(lambda x: x * 2.0, 1.0)["q"]


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: x.numpy() * 2,
        lambda x: x * float(x),
        lambda x: tf.constant(np.sin(x)),
        lambda x: tf.Variable(x) * 2,
        lambda x: tf.constant(x) * 2,
    ],
)
def test_leaving_tensorflow_names_the_line(leave):
    with pytest.raises(RuntimeError, match=r"trace: fn leaves TensorFlow at .*test_tracing.py:\d+: `lambda x") as error:
        trace(leave, 1.0)
    assert f":{leave.__code__.co_firstlineno}: " in str(error.value)
    assert "Write tf.* instead of np.*" in str(error.value)


def test_mistakes_of_another_kind_pass_through():
    with pytest.raises(KeyError, match="missing"):
        trace(lambda x: {}["missing"], 1.0)
    with pytest.raises(TypeError, match=r"trace: fn returned None. It must return the target"):
        trace(lambda x: None, 1.0)
    with pytest.raises(TypeError, match=r"trace: source 'x' is ragged. .* Give its .flat_values"):
        trace(lambda x: tf.reduce_sum(x), tf.ragged.constant([[1.0], [2.0, 3.0]]))


def test_a_trace_inside_a_tf_function_is_an_error():
    @tf.function(autograph=False)
    def compiled():
        return tapekit.trace(lambda x: x * 2.0, 1.0)

    with pytest.raises(RuntimeError, match=r"trace: called inside a tf.function"):
        compiled()


def test_a_small_tensor_in_a_closure_is_found_though_tensorflow_embeds_it():
    x = tf.constant(3.0)
    assert trace(lambda: x * x + tf.cond(x > 0, lambda: x, lambda: 2 * x), x).sources[0].gradient == 7


def test_huge_and_unbounded_values_are_shown_without_a_warning():
    found = trace(lambda v: tf.reduce_sum(v * v), tf.constant([1e25, 1e30]))
    assert "[2] mean 5e+29 min 1e+25 max 1e+30 norm 1e+30" in str(found)
    assert "mean nan min -inf max inf norm inf" in str(trace(lambda v: v / 0.0, tf.constant([1.0, -1.0])))


def test_shape_arithmetic_is_folded_away():
    def mean(x):
        return tf.reduce_sum(x) / tf.cast(tf.raw_ops.Shape(input=x)[0], tf.float32)

    found = trace(mean, tf.constant([3.0, 5.0]))
    assert [op.type for op in found.ops] == ["Sum", "RealDiv"]
    assert [c.value for c in found.constants] == [2]


def test_a_scope_called_like_a_source_keeps_the_names_apart():
    w = tf.Variable([1.0, 2.0], name="w")

    def scoped():
        with tf.name_scope("w"):
            return tf.reduce_sum(tf.sin(w * w))

    found = trace(scoped, w, depth=1)
    assert [(op.name, op.type, op.inputs) for op in found.ops] == [("w/Sum", "Scope", ("w",))]
    product = trace(lambda mul, y: mul * y, [2.0, 3.0])
    assert [(op.name, op.inputs, op.value) for op in product.ops] == [("mul:op", ("mul", "y"), 6)]


def test_a_trace_does_not_change_when_its_variables_do():
    v = tf.Variable([1.0, 2.0], name="v")
    found = trace(lambda: v * v, v)
    v.assign_add([10.0, 10.0])
    assert found["v"].value.tolist() == [1, 2]


def test_a_source_that_is_assigned_to_a_variable_is_traced_and_the_variable_put_back():
    state = tf.Variable(1.0, name="state")

    def stateful(x):
        state.assign(x)
        return state * 2.0

    found = trace(stateful, 5.0)
    assert (found.target.value, found["x"].gradient, state.numpy()) == (10, None, 1)


def test_a_complex_target_has_the_gradient_of_the_tape():
    x, y = tf.Variable(2.0, name="x"), tf.Variable(3.0, name="y")
    found = trace(lambda: tf.complex(x * x, y * 3.0), [x, y])
    assert [source.gradient for source in found.sources] == [4, 0]
    assert found.target.value == 4 + 9j


def test_the_cell_of_a_notebook_is_called_so():
    assert short("/tmp/ipykernel_12/893050458.py") == "notebook cell"
    assert short("<ipython-input-3-abc>") == "notebook cell"
    assert short("/home/ada/loss.py") == "loss.py"


def test_a_trace_is_not_a_sequence():
    with pytest.raises(TypeError, match="'Trace' object is not iterable"):
        list(trace(tf.square, 1.0))


def test_an_array_that_does_not_fit_is_told_by_tensorflow():
    w, labels = tf.Variable(tf.ones([4, 1])), np.ones([3, 1], "float32")
    with pytest.raises(ValueError, match=r"Dimensions must be equal, but are 4 and 3"):
        trace(lambda: tf.reduce_mean((w - labels) ** 2), w)
