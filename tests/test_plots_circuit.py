from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import pytest
import tensorflow as tf
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tapekit import animate_trace, plot_trace, trace
from tapekit.plots.circuit import _draw, _film


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


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("make", [circuit, lambda: deep(60), lambda: trace(lambda x: x * x + tf.sin(x) * 3.0, 2.0)])
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
    assert sorted(labels(ax)) == ["-4 x 1 = -4", "-4 x 1 = -4", "1 x -4 = -4", "1 x 3 = 3"]
    _, texts = boxes_and_texts(ax)
    shown = [text for text, _ in texts]
    at = shown.index("mul")
    assert shown[at : at + 4] == ["mul", "|", "-12", "1"]
    assert ax.get_title() == "mul: value | gradient"


def test_sources_target_and_operations_have_colours_of_their_own():
    ax = plot_trace(trace(lambda x: tf.sin(x) * 3.0, 2.0))
    faces = [to_hex(patch.get_facecolor()) for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    assert len(set(faces)) == 4  # source, constant, operation, target


def test_labels_do_not_stand_on_each_other():
    ax = plot_trace(trace(lambda x: tf.add_n([x, x, x]) * x, 2.0))
    renderer = ax.figure.canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in ax.texts if text.get_bbox_patch() is not None]
    assert len(extents) == 5
    for one, other in combinations(extents, 2):
        assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0


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
    assert [text for text, _ in texts][:4] == ["v", "[2] norm", "|", "5"]
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
    assert (
        ax.get_title() == "add_4: value | gradient (80 operations folded by scope to 8)"
        or "80 operations" in ax.get_title()
    )
    _, texts = boxes_and_texts(ax)
    assert [text for text, _ in texts if text.startswith("stage")] == [f"stage{block}" for block in range(8)]


def test_a_wrong_direction_says_which_there_are():
    with pytest.raises(ValueError, match=r"plot_trace: direction is 'up'. It is 'right' or 'down'."):
        plot_trace(circuit(), direction="up")


def test_the_film_goes_forward_then_back_and_adds_up_at_the_fork():
    found = trace(lambda x: x * x + x, 3.0)
    picture = _draw(found, None, "right")
    show, frames = _film(picture)
    ax = picture.ax

    def state(frame):
        show(frame)
        shown = [
            t.get_text() for t in ax.texts if t.get_visible() and t.get_text().strip("|") and t.get_bbox_patch() is None
        ]
        return shown, [t.get_text() for t in ax.texts if t.get_visible() and t.get_bbox_patch() is not None]

    assert state(0) == (["x", "3", "mul", "add"], [])
    shown, lines = state(3)
    assert shown == ["x", "3", "mul", "9", "add", "12", "1"]
    assert lines == []
    gradients = [state(frame)[0][2] for frame in range(5, 8)]  # of x, as its three edges arrive
    assert gradients == ["1", "4", "7"]
    assert len(state(7)[1]) == 4
    assert frames == 3 + 4 + 3


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
