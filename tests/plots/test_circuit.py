from functools import cache
from itertools import combinations, pairwise

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import tapekit
from tapekit import animate_trace, plot_trace, trace
from tapekit.plots.animation import film
from tapekit.plots.circuit import Picture
from tests.tracing import test_folding


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def circuit():
    return trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])


def deep(count):
    """A network of `count` operations, in which every value is used twice."""

    def run(x, y):
        for _ in range(count // 3):
            x, y = x * y, tf.sin(x) + y
        return x

    return trace(run, [tf.constant([1.0, 0.5]), tf.constant([0.2, 0.3])])


def boxes_and_texts(ax):
    renderer = ax.figure.canvas.get_renderer()
    boxes = [patch.get_window_extent(renderer) for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    texts = [text for text in ax.texts if text.get_text() and text.get_bbox_patch() is None]
    return boxes, [(text.get_text(), text.get_window_extent(renderer)) for text in texts]


def labels(ax):
    return [text.get_text() for text in ax.texts if text.get_bbox_patch() is not None]


def arrows(ax):
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def check_ways(picture):
    """From every source with a gradient a way leads to the target: from its own box or that of its layer."""
    trace, boxes = picture.trace, picture.boxes
    feeds = {}
    for edge in picture.edges:
        assert {edge.source, edge.op} <= set(boxes)
        feeds.setdefault(edge.op, []).append(edge.source)
    reached, stack = set(), [trace.target.name]
    while stack:
        name = stack.pop()
        reached.add(name)
        stack += [feed for feed in feeds.get(name, []) if feed not in reached]
    for source in trace.sources:
        users = {op.name for op in trace.ops if source.name in op.inputs}
        if source.gradient is not None:
            assert source.name in reached or (source.name not in boxes and users and users <= reached)


def named(layers):
    """A model of layers with these names, each a residual block of its own kernel."""
    x = inputs = keras.Input([4])
    for name in layers:
        x = x + keras.layers.Dense(4, "tanh", name=name)(x)
    return keras.Model(inputs, x, name="net")


MODELS = {
    "words": lambda: named([f"stage{i}_block{j}_{part}" for i in range(3) for j in range(6) for part in "ab"]),
    "no words": lambda: named([f"dense{i}" for i in range(35)]),
    "transformer": test_folding.transformer,
    "recurrent": test_folding.recurrent,
    "shared": test_folding.shared,
    "convolutional": test_folding.convolutional,
}


@pytest.fixture(scope="module", params=MODELS)
def model_trace(request):
    keras.utils.set_random_seed(0)
    model = MODELS[request.param]()
    data = tf.random.stateless_normal([2, *model.input_shape[1:]], [1, 2])
    return trace(lambda: tf.reduce_mean(model(data) ** 2), model.trainable_variables)


@pytest.mark.parametrize("depth", [None, 1, 2])
@pytest.mark.parametrize("boxes", [60, 20])
def test_a_model_is_drawn_in_as_many_boxes_as_can_be_read_and_whole(model_trace, depth, boxes):
    found = model_trace.fold(depth) if depth else model_trace
    picture = Picture("plot_trace", found, None, "right", boxes=boxes)
    assert len(picture.boxes) <= boxes
    check_ways(picture)
    held = {op.name for op in picture.trace.sources} - set(picture.boxes)
    assert len(held) == (len(found.sources) if any(op.type == "Scope" for op in picture.trace.ops) else 0)


@pytest.mark.parametrize("name", test_folding.PROGRAMS)
def test_no_edge_of_a_program_is_lost_in_its_picture(name):
    whole = trace(test_folding.PROGRAMS[name], test_folding.W)
    for found, boxes in ((whole, 60), (whole.fold(1), 60), (whole, 6)):
        picture = Picture("plot_trace", found, None, "right", boxes=boxes)
        check_ways(picture)
        plt.close(picture.ax.figure)


def text_in(picture, name):
    frame = picture.boxes[name].frame
    x, y, wide, high = frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()
    found = [(t.get_text(), t.get_position()) for t in picture.ax.texts]
    return [text for text, at in found if x <= at[0] <= x + wide and y <= at[1] <= y + high]


def test_a_folded_layer_holds_its_weights_and_the_users_own_sources_stay_boxes():
    layer, own = keras.layers.Dense(3, name="layer"), tf.Variable([1.0, 2.0, 3.0], name="own")
    x = tf.constant([[1.0, 2.0]])
    layer(x)
    layer.bias.assign([0.5, 0.5, 0.5])
    found = trace(lambda: tf.reduce_sum(layer(x) ** 2 * own), [*layer.trainable_variables, own], depth=1)
    picture = Picture("plot_trace", found, None, "right")
    assert set(picture.boxes) == {op.name for op in (*found.ops, *found.constants)} | {"own"}
    norms = sorted(float(np.linalg.norm(source.gradient)) for source in found.sources[:2])
    assert f"2 weights: {norms[0]:.2g} to {norms[1]:.2g}" in text_in(picture, "layer")


def test_weights_without_a_gradient_are_counted_in_the_box():
    layer = keras.layers.Dense(2, name="layer")
    x = tf.constant([[1.0, 2.0]])
    layer(x)
    half = trace(lambda: tf.reduce_sum(x @ tf.stop_gradient(layer.kernel) + layer(x) * 0.0), layer.variables, depth=1)
    assert Picture("plot_trace", half, None, "right").boxes
    none = trace(lambda: tf.reduce_sum(tf.round(layer(x)) * own_scale), [*layer.variables, own_scale], depth=1)
    assert "2 weights: none" in text_in(Picture("plot_trace", none, None, "right"), "layer")


own_scale = tf.Variable(1.0, name="scale")


def test_layers_of_the_same_name_and_passes_through_one_have_labels_that_tell_apart():
    model = test_folding.transformer()
    found = trace(lambda: tf.reduce_sum(model(tf.ones([2, 5, 4]))), model.trainable_variables, depth=2)
    texts = [text.get_text() for text in plot_trace(found).texts]
    assert {"block_0/add", "block_0/add (2)", "block_1/add", "block_1/add (2)"} <= set(texts)
    names = [op.name for op in found.ops]
    assert len(set(names)) == len(names)


def lightness(picture, name):
    return np.dot([0.299, 0.587, 0.114], picture.boxes[name].frame.get_facecolor()[:3])


def test_boxes_are_the_darker_the_larger_the_gradient_also_in_grey():
    def run(x):
        for _ in range(5):
            x = tf.sigmoid(x)
        return tf.reduce_sum(x)

    found = trace(run, tf.constant([0.5, 1.0]))
    picture = Picture("plot_trace", found, None, "right")
    order = sorted((*found.ops, *found.sources), key=lambda op: np.linalg.norm(op.gradient))
    shades = [lightness(picture, op.name) for op in order]
    assert shades == sorted(shades, reverse=True)
    assert shades[0] - shades[-1] > 0.3
    (bar,) = picture.ax.child_axes
    norms = [np.linalg.norm(order[place].gradient) for place in (0, -1)]
    np.testing.assert_allclose(bar.get_xlim(), np.log10(norms), rtol=1e-6)
    assert bar.get_title(loc="left") == "log10 of the gradient's L2 norm"


def test_none_zero_and_not_finite_have_looks_of_their_own():
    v, dead, spoilt = (tf.Variable([0.0, 1.0], name=name) for name in ("v", "dead", "spoilt"))
    found = trace(
        lambda: tf.reduce_sum(tf.round(v) * v + tf.nn.relu(dead - 2.0) + tf.sqrt(spoilt) * 0.5), [v, dead, spoilt]
    )
    picture = Picture("plot_trace", found, None, "right")
    looks = {name: (box.frame.get_hatch(), box.frame.get_linestyle()) for name, box in picture.boxes.items()}
    assert len({looks["v"], looks["dead"], looks["spoilt"], looks["Round"]} | {(None, "-")}) == 4
    assert {picture.boxes[name].gradient.get_text() for name in ("dead", "spoilt")} == {"0", "inf"}


def test_a_circuit_of_scalars_keeps_its_colours():
    picture = Picture("plot_trace", circuit(), None, "right")
    assert not picture.ax.child_axes
    assert {to_hex(box.value.get_color()) for box in picture.boxes.values()} == {"#0072b2"}
    assert {to_hex(box.frame.get_facecolor()) for box in picture.boxes.values()} == {"#fff2b3", "#ffffff", "#c9e4f5"}


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("make", [circuit, lambda: deep(54), lambda: trace(lambda x: x * x + tf.sin(x) * 3.0, 2.0)])
def test_no_two_boxes_meet_and_every_text_lies_in_its_box(make, direction):
    found = make()
    ax = plot_trace(found, direction=direction)
    boxes, texts = boxes_and_texts(ax)
    assert len(boxes) == len(found.ops) + len(found.sources) + len(found.constants)
    for one, other in combinations(boxes, 2):
        assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
    for text, at in texts:
        inside = [b for b in boxes if b.x0 <= at.x0 and at.x1 <= b.x1 and b.y0 <= at.y0 and at.y1 <= b.y1]
        assert len(inside) == 1, text


def test_the_text_fits_its_box_in_axes_of_any_size():
    _, axes = plt.subplots(1, 2, figsize=(6, 2))
    for ax in axes:
        assert plot_trace(circuit(), ax=ax) is ax
        boxes, texts = boxes_and_texts(ax)
        for _, at in texts:
            assert any(b.x0 <= at.x0 and at.x1 <= b.x1 and b.y0 <= at.y0 and at.y1 <= b.y1 for b in boxes)


def test_boxes_show_value_and_gradient_and_edges_the_chain_rule():
    ax = plot_trace(circuit())
    assert sorted(labels(ax)) == ["-4 x 1 = -4", "-4 x 1 = -4", "1 x (-4) = -4", "1 x 3 = 3"]
    _, texts = boxes_and_texts(ax)
    shown = [text for text, _ in texts]
    at = shown.index("mul")
    assert shown[at : at + 4] == ["mul", "|", "-12", "1"]
    assert ax.get_title() == "value | gradient of mul"


def test_the_title_names_the_function_or_the_box_whose_gradient_is_shown():
    def loss(x):
        return tf.sin(x) * x

    for fn, name in ((loss, "loss"), (lambda x: tf.sin(x) * x, "mul"), (lambda x: x, "x")):
        found = trace(fn, 2.0)
        for each in (found, found.fold(1)):
            assert plot_trace(each).get_title() == f"value | gradient of {name}"


@pytest.mark.parametrize("direction", ["right", "down"])
def test_a_long_title_is_not_cut_off(direction):
    def a_loss_with_a_name_that_is_much_longer_than_the_circuit_that_it_makes_of_one_number(x):
        return x * x

    fn = a_loss_with_a_name_that_is_much_longer_than_the_circuit_that_it_makes_of_one_number
    ax = plot_trace(trace(fn, 2.0), direction=direction)
    title, figure = ax.title.get_window_extent(ax.figure.canvas.get_renderer()), ax.figure.bbox
    assert figure.x0 < title.x0 < title.x1 < figure.x1


def test_a_circuit_with_a_tensor_has_the_look_of_tensors_also_where_no_gradient_arrives():
    p = tf.Variable([0.0, 3.0], name="p")
    cut = Picture("plot_trace", trace(lambda: tf.cast(tf.argmax(p), tf.float32), p), None, "right")
    other = Picture("plot_trace", trace(lambda: tf.reduce_sum(tf.stop_gradient(p) ** 2), p), None, "right")
    for picture in (cut, other):
        frame = picture.boxes["p"].frame
        assert to_hex(frame.get_facecolor()) == "#ffffff"
        assert frame.get_linestyle() != "-"
    assert cut.boxes["p"].value.get_color() == other.boxes["p"].value.get_color() == "black"


@pytest.mark.parametrize(("factor", "bars"), [(1.0, 0), (-1.1, 0), (2.9, 0), (4.0, 1), (1e-6, 1)])
def test_norms_that_hardly_differ_have_no_colour_bar(factor, bars):
    picture = Picture("plot_trace", trace(lambda v: tf.add(v, [0.0]) * factor, tf.constant([2.0])), None, "right")
    assert len(picture.ax.child_axes) == bars
    assert len({to_hex(box.frame.get_facecolor()) for box in picture.boxes.values()} - {"#f4f4f4"}) <= 2


def test_panels_of_different_circuits_have_text_of_one_size():
    _, axes = plt.subplots(2, 1, figsize=(16, 8))
    found = [trace(lambda x: x * x, 2.0), trace(lambda x: tf.sin(tf.cos(tf.exp(x * 2.0))), 2.0)]
    sizes = {plot_trace(each, ax=ax).texts[0].get_fontsize() for each, ax in zip(found, axes, strict=True)}
    assert sizes == {9}


def test_sources_target_and_operations_have_colours_of_their_own():
    ax = plot_trace(trace(lambda x: tf.sin(x) * 3.0, 2.0))
    faces = [to_hex(patch.get_facecolor()) for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    assert len(set(faces)) == 4  # source, constant, operation, target


@pytest.mark.parametrize("direction", ["right", "down"])
def test_labels_stand_neither_on_each_other_nor_on_boxes(direction):
    ax = plot_trace(trace(lambda x: tf.add_n([x] * 5) * x, 2.0), direction=direction)
    renderer = ax.figure.canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in ax.texts if text.get_bbox_patch() is not None]
    assert len(extents) == 7
    for one, other in combinations(extents + boxes_and_texts(ax)[0], 2):
        assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0


@pytest.mark.parametrize("direction", ["right", "down"])
def test_labels_beside_each_other_do_not_read_as_one(direction):
    neuron = trace(
        lambda w0, w1, w2, x0, x1: 1 / (1 + tf.exp(-(w0 * x0 + w1 * x1 + w2))), [2.0, -3.0, -3.0, -1.0, -2.0]
    )
    ax = plot_trace(neuron, direction=direction)
    renderer = ax.figure.canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in ax.texts if text.get_bbox_patch() is not None]
    assert all(0 < each.x0 < each.x1 < ax.figure.bbox.x1 for each in extents)
    gap = 1.2 * 9 * ax.figure.dpi / 72
    for one, other in combinations(extents, 2):
        apart = max(one.x0 - other.x1, other.x0 - one.x1)
        assert apart > gap or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1


def test_an_edge_without_gradient_is_dashed_and_says_so():
    v = tf.Variable([1.0, 2.0, 3.0], name="v")
    ax = plot_trace(trace(lambda: tf.reduce_sum(tf.cast(tf.argmax(v), tf.float32) * v), v))
    cut = [arrow for arrow in arrows(ax) if arrow.get_linestyle() != "-"]
    assert len(cut) == labels(ax).count("no gradient") == 2
    assert {to_hex(arrow.get_edgecolor()) for arrow in cut}.isdisjoint(
        to_hex(arrow.get_edgecolor()) for arrow in arrows(ax) if arrow not in cut
    )


def test_tensors_show_their_shape_and_norm():
    _, texts = boxes_and_texts(plot_trace(trace(lambda v: tf.reduce_sum(v * v), tf.constant([3.0, 4.0]))))
    assert [text for text, _ in texts][:4] == ["v", "[2], norms", "|", "5"]
    assert texts[4][0] == "10"


def test_more_than_sixty_operations_are_folded_by_scope():
    def run(x):
        for block in range(8):
            with tf.name_scope(f"stage{block}"):
                for _ in range(5):
                    x = tf.sin(x) + x
        return x

    found = trace(run, 1.0)
    ax = plot_trace(found)
    assert ax.get_title() == "value | gradient of run (80 operations in 8 boxes)"
    _, texts = boxes_and_texts(ax)
    assert [text for text, _ in texts if text.startswith("stage")] == [f"stage{block}" for block in range(8)]


def test_operations_without_a_scope_are_joined_where_one_result_is_passed_on():
    ax = plot_trace(trace(lambda x: sum(tf.sin(x) for _ in range(35)), 1.0))
    assert ax.get_title() == "value | gradient of add_34 (70 operations in 36 boxes)"
    assert len(boxes_and_texts(ax)[0]) == 38


def test_a_zero_has_no_sign():
    ax = plot_trace(trace(lambda x: -(x * 0.0) * 3.0, 2.0))
    shown = {text.get_text() for text in ax.texts}
    assert "0" in shown
    assert not any("-0" in text for text in shown - {"-0.0"})


def test_what_cannot_be_joined_is_drawn_whole_and_the_title_says_so():
    ax = plot_trace(trace(lambda *terms: tf.add_n(terms), [1.0] * 12), boxes=10)
    assert len(boxes_and_texts(ax)[0]) == 13
    assert "(no scopes to fold; trace a part to see less)" in ax.get_title()


@cache
def sixty():
    def run(x):
        for _ in range(30):
            x = tf.sin(x * 1.5)
        return x

    return trace(run, 1.0)


@pytest.mark.parametrize("direction", ["right", "down"])
def test_sixty_operations_fill_a_page_line_by_line(direction):
    ax = plot_trace(sixty(), direction=direction, boxes=100)
    assert max(ax.figure.get_size_inches()) < 20
    assert ax.texts[0].get_fontsize() == pytest.approx(9, rel=0.01)
    boxes, _ = boxes_and_texts(ax)
    assert len(boxes) == 91
    x0, y0, x1, y1 = np.array([box.extents for box in boxes]).T
    for arrow in arrows(ax):  # each goes on in the next line without crossing a box
        for line in arrow.get_path().to_polygons(ax.transData, closed_only=False):
            points = np.concatenate([np.linspace(a, b, 50) for a, b in pairwise(line)])
            x, y = points[:, :1], points[:, 1:]
            assert not ((x0 + 1 < x) & (x < x1 - 1) & (y0 + 1 < y) & (y < y1 - 1)).any()


def test_names_are_shown_as_they_are_written():
    ax = plot_trace(trace(lambda **k: k["$a$"] * k["größe"], {"$a$": 2.0, "größe": 3.0}))
    assert not any(text.get_parse_math() for text in ax.texts if "$" in text.get_text())
    assert {"$a$", "größe"} < {text.get_text() for text in ax.texts}


@cache
def stages(count):
    """A trace of `count` named stages, each with a weight of the user's own."""

    def run(*weights):
        x = 1.0
        for stage, weight in enumerate(weights):
            with tf.name_scope(f"stage{stage}"):
                x = tf.sin(weight) * x
        return x

    return trace(run, [1.0] * count, depth=1)


@pytest.mark.parametrize("count", [20, 35, 80])
@pytest.mark.parametrize("most", [30, 60])
def test_there_are_no_more_boxes_than_wanted_and_no_source_is_left_out(count, most):
    picture = Picture("plot_trace", stages(count), None, "right", boxes=most)
    assert len(picture.boxes) <= most
    check_ways(picture)


def test_boxes_are_ordered_so_that_edges_do_not_cross():
    ax = plot_trace(trace(lambda a, b, c: tf.sin(c) * 2 + tf.tanh(a) * tf.cos(b), [1.0, 2.0, 3.0]))
    height = {text.get_text(): text.get_position()[1] for text in ax.texts}
    rank = sorted(["Sin", "Tanh", "Cos"], key=height.get)
    assert sorted("abc", key=height.get) == [{"Sin": "c", "Tanh": "a", "Cos": "b"}[op] for op in rank]


def test_a_wrong_direction_or_no_trace_says_what_to_give():
    with pytest.raises(ValueError, match=r"plot_trace: direction is 'up'. Write 'right' or 'down'."):
        plot_trace(circuit(), direction="up")
    with pytest.raises(
        TypeError,
        match=r"animate_trace: trace is of type function. A Trace is needed. Write animate_trace\(trace\(fn, vars",
    ):
        animate_trace(circuit)


def test_the_film_begins_with_the_whole_goes_forward_then_back_and_adds_up_at_the_fork():
    found = trace(lambda x: x * x + x, 3.0)
    picture = Picture("animate_trace", found, None, "right", shaded=False)
    show, frames = film(picture)
    ax = picture.ax

    def state(frame):
        show(frame)
        shown = [
            t.get_text() for t in ax.texts if t.get_visible() and t.get_text().strip("|") and t.get_bbox_patch() is None
        ]
        return shown, [t.get_text() for t in ax.texts if t.get_visible() and t.get_bbox_patch() is not None]

    assert state(0) == state(frames - 1)
    assert state(1) == (["x", "3", "mul", "add"], [])
    shown, lines = state(4)
    assert shown == ["x", "3", "mul", "9", "add", "12", "1"]
    assert lines == []
    gradients = [state(frame)[0][2] for frame in range(6, 9)]  # of x, as its three edges arrive
    assert gradients == ["1", "4", "7"]
    assert len(state(8)[1]) == 4
    assert frames == 1 + 3 + 4 + 3
    lit = []
    for frame in range(1, 5):
        show(frame)
        lit.append([name for name, box in picture.boxes.items() if box.frame.get_linewidth() > 2])
    assert lit == [[], ["mul"], ["add"], []]


def test_a_folded_model_is_played_without_the_boxes_of_its_weights():
    model = test_folding.sequential()
    found = trace(lambda: tf.reduce_sum(model(tf.ones([2, 3]))), model.trainable_variables, depth=1)
    picture = Picture("animate_trace", found, None, "right", shaded=False)
    show, frames = film(picture)
    for frame in range(frames):
        show(frame)
    assert set(picture.boxes) == {op.name for op in (*found.ops, *found.constants)}
    assert picture.boxes["Sum"].gradient.get_text() == "1"


def test_tensors_that_arrive_in_the_film_are_added_up():
    found = trace(lambda v: tf.reduce_sum(v * v - v), tf.constant([3.0, 4.0]))
    picture = Picture("animate_trace", found, None, "right", shaded=False)
    show, frames = film(picture)
    show(frames - 1)
    assert picture.boxes["v"].gradient.get_text() == "8.6"  # the norm of 2 v - 1 = [5, 7]


def test_the_film_can_be_saved_and_stepped_through(tmp_path):
    film = animate_trace(circuit())
    film.save(tmp_path / "circuit.gif", writer="pillow", dpi=80)
    assert 1_000 < (tmp_path / "circuit.gif").stat().st_size < 400_000
    assert "<img" in film.to_jshtml()


def test_pictures_leave_matplotlib_as_it_was(tmp_path):
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    plot_trace(circuit())
    animate_trace(circuit()).save(tmp_path / "circuit.gif", writer="pillow")
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend() == backend


@pytest.mark.parametrize("boxes", [0, -1, 2.5, "20"])
def test_the_number_of_boxes_is_a_positive_integer(boxes):
    with pytest.raises(ValueError, match=r"plot_trace: boxes is .*A positive integer is needed. Write boxes=20"):
        plot_trace(trace(lambda x: x * x, 2.0), boxes=boxes)


@pytest.mark.parametrize("interval", [0, -600, "fast", None, np.nan, np.inf])
def test_the_interval_of_a_film_is_a_positive_number(interval):
    with pytest.raises(ValueError, match=r"animate_trace: interval is .*milliseconds is needed. Write interval=600"):
        animate_trace(circuit(), interval=interval)


@pytest.mark.parametrize("projection", ["3d", "polar"])
def test_axes_of_another_projection_are_refused(projection):
    with pytest.raises(TypeError, match=r"ax is of type (Axes3D|PolarAxes)\w*. One matplotlib Axes is needed"):
        plot_trace(circuit(), ax=Figure().add_subplot(projection=projection))


@pytest.mark.parametrize("axes", [lambda: Figure(), lambda: Figure().subplots(2), lambda: 3])
def test_what_is_not_one_axes_is_refused_with_its_kind(axes):
    squared, check = trace(lambda x: x * x, 2.0), tapekit.check_gradient(tf.sin, 1.0)
    for plot, shown in ((plot_trace, squared), (tapekit.plot_check, check)):
        with pytest.raises(TypeError, match=r"plot_(trace|check): ax is of type (Figure|ndarray|int). One"):
            plot(shown, ax=axes())
