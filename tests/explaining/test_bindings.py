import linecache

import tensorflow as tf

import tapekit
from tapekit.explaining.bindings import last_binding


def bound(fn, name, holder=None):
    """The code of the line that last bound a name, and whether another one did before."""
    found = last_binding(name, fn.__code__, holder)
    return found and (found.at.code, found.again)


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
    assert bound(fn, "a") == ("a = a + 1.0", True)
    assert bound(fn, "c") == bound(fn, "b") == ("b, (c, d) = 2.0, (3.0, 4.0)", False)
    assert bound(fn, "e") == ("for e in (1.0, 2.0):", False)
    assert bound(fn, "f") == ('with tf.name_scope("scope") as f:', False)
    assert bound(fn, "g['h']") == ('g["h"] = 5.0', True)
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
