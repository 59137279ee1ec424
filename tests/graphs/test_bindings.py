import dataclasses
import linecache

import tensorflow as tf

import tapekit
from tapekit.graphs.bindings import last_binding


def bound(fn, name, holder=None):
    """The code of the line that last bound a name, and whether another one made a variable of it before."""
    found = last_binding(name, fn.__code__, holder)
    return found and (found.at.code, found.variable)


def test_the_last_line_before_fn_is_found_for_every_way_to_bind_a_name():
    a = 1.0
    b, (c, d) = 2.0, (3.0, 4.0)
    for e in (1.0, 2.0):
        last = e
    with tf.name_scope("scope") as f:
        pass
    a = a + 1.0
    g = {}
    g["h"] = 5.0

    def fn():
        return a, b, c, d, e, f, g, last

    a = fn
    assert bound(fn, "a") == ("a = a + 1.0", False)
    assert bound(fn, "c") == bound(fn, "b") == ("b, (c, d) = 2.0, (3.0, 4.0)", False)
    assert bound(fn, "e") == ("for e in (1.0, 2.0):", False)
    assert bound(fn, "f") == ('with tf.name_scope("scope") as f:', False)
    assert bound(fn, "g['h']") == ('g["h"] = 5.0', False)
    assert bound(fn, "nothing") is None


def test_an_attribute_is_bound_in_a_method_of_its_class():
    class Model:
        def __init__(self):
            self.first = 1.0

        def loss(self):
            return self.first

        def forward(self):
            self.first = 2.0

    model = Model()
    assert bound(Model.loss, "self.first", model) == ("self.first = 2.0", False)


def test_a_default_a_class_body_and_a_field_are_bindings():
    made = 3.0

    class Base:
        scale = 1.0

    @dataclasses.dataclass
    class Batch(Base):
        x: float
        code: float

    batch = Batch(1.0, 2.0)

    def fn(first, *, h=made + 1.0, same=made):
        scale = batch.code
        return h, same, scale

    assert bound(fn, "h") == ("def fn(first, *, h=made + 1.0, same=made):", False)
    assert bound(fn, "same") == ("made = 3.0", False)
    assert bound(fn, "batch.scale", batch) == ("scale = 1.0", False)
    assert bound(fn, "batch.code", batch) == ("batch = Batch(1.0, 2.0)", False)


def test_it_is_known_whether_a_name_was_a_variable_before():
    total, w = tf.zeros([2]), tf.Variable([1.0, 2.0])
    params, (a, b) = [w], (tf.Variable(1.0), tf.Variable(2.0))
    total = total + w**2
    w = w - 1.0
    a, b = a - 1.0, b - 1.0

    def fn():
        return total, w, a, params

    assert bound(fn, "total") == ("total = total + w**2", False)
    assert bound(fn, "w") == ("w = w - 1.0", True)
    assert bound(fn, "a") == ("a, b = a - 1.0, b - 1.0", True)


def test_a_tensor_that_never_was_a_variable_is_not_said_to_replace_one():
    w, total, summed = tf.Variable([1.0, 2.0]), tf.zeros([2]), tf.zeros([2])
    total += w**2
    for k in range(3):
        summed = summed + w * float(k)
    for fn in (lambda: tf.reduce_sum(total), lambda: tf.reduce_sum(summed**2), lambda: tf.reduce_sum(total * summed)):
        finding = tapekit.explain(fn, w)[0]
        assert finding.cause == "outside_tape"
        assert finding.advice.startswith("Move the line that computes ")
    old = [w]
    w = w - 0.1
    assert tapekit.explain(lambda: tf.reduce_sum(w**2), old)[0].cause == "replaced_by_tensor"


def test_a_name_of_another_notebook_cell_is_found():
    cells = {
        "/tmp/ipykernel_9/1.py": "import tensorflow as tf\nw = tf.Variable([1.0, 2.0])\nhidden = tf.exp(w)[:1]\n",
        "/tmp/ipykernel_9/2.py": "def fn():\n    return tf.reduce_sum(hidden)\n",
    }
    space = {}
    for file, source in cells.items():
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        exec(compile(source, file, "exec"), space)
    finding = tapekit.explain(space["fn"], space["w"])[0]
    assert (finding.cause, finding.line, finding.code) == ("outside_tape", 3, "hidden = tf.exp(w)[:1]")
    assert "hidden (1,) (made on line 3, read on line 2)" in finding.why


def test_a_target_that_was_made_before_fn_is_listed_with_its_lines():
    y = tf.Variable([1.0, 2.0])
    cost = tf.reduce_sum(y**2)
    first = test_a_target_that_was_made_before_fn_is_listed_with_its_lines.__code__.co_firstlineno
    finding = tapekit.explain(lambda: cost, y)[0]
    assert (finding.cause, finding.line) == ("outside_tape", first + 2)
    assert f"cost () (made on line {first + 2}, read on line {first + 4})" in finding.why


def test_a_complex_tensor_that_was_made_before_fn_is_listed():
    y = tf.Variable([1.0, 2.0])
    spectrum = tf.signal.fft(tf.cast(y, tf.complex64))
    finding = tapekit.explain(lambda: tf.reduce_sum(tf.abs(spectrum)), y)[0]
    assert finding.cause == "outside_tape"
    assert "spectrum (2,)" in finding.why
