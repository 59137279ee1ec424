"""The checks of the exercises. Answers are in here: solve the exercises first, then read this file.

Each check takes your answer as `mine` and prints "Right.", or "Not yet." with a hint.
"""

import functools
from collections.abc import Callable
from typing import Any

import lesson  # noqa: F401 (quiet, before TensorFlow starts)
import numpy as np
import tensorflow as tf

import tapekit


def exercise(hint_for: Callable[..., str]) -> Callable[..., None]:
    """Make a check of a function that returns a hint for a wrong answer and "" for a right one."""

    @functools.wraps(hint_for)
    def check(mine: Any, *given: Any) -> None:
        if mine is ... or (isinstance(mine, dict) and ... in mine.values()):
            print("No answer yet. Write yours in place of the dots, and run the cell again.")
            return
        try:
            hint = hint_for(mine, *given)
        except Exception as error:
            hint = f"Your answer raises {type(error).__name__}: {error}"
        print(f"Not yet. {hint}" if hint else "Right.")

    return check


def close(a: Any, b: Any, tolerance: float = 1e-3) -> bool:
    return bool(np.allclose(np.asarray(a, "float64"), b, rtol=tolerance, atol=tolerance))


# 1. One variable


@exercise
def check_step_size(mine):
    if close(mine, 0.5):
        return ""
    if close(mine, 1.0):
        return "With 1.0 the step is 1.0 * 10 = 10. It leads from 5 to -5, across the bottom."
    if close(mine, 5.0):
        return "5 is how far w must move. The step is step size * slope, and the slope at 5 is 10."
    return f"With {mine} the step leads from 5 to {5 - mine * 10:g}. It should lead to 0."


@exercise
def check_walk(mine):
    if close(mine, 3 - 3 * 0.8**30, 2e-4):
        return ""
    if close(mine, 0.6):
        return "That is one step. Take 30."
    if close(mine, 1.0, 0.01):
        return "That is the loss at the end of the walk. The question is where x ends."
    if close(mine, 3.0, 1e-6):
        return "That is the bottom itself. Thirty steps end near it; print all digits of your x."
    if mine < 0:
        return "x went uphill. A step goes against the slope: x = x - 0.1 * slope."
    return "Start at x = 0. Repeat 30 times: ask for the slope at x, then x = x - 0.1 * slope."


# 2. The tape as a circuit


@exercise
def check_gates(mine):
    if close([mine["a"], mine["b"], mine["c"]], [5.0, 8.0, 3.0]):
        return ""
    if close(mine["b"], 15.0):
        return "Two edges lead away from b. What flows back along them is added, not multiplied."
    if close(mine["b"], 5.0) or close(mine["b"], 3.0):
        return "b is used twice. It gets something from both sums."
    if close([mine["a"], mine["c"]], [3.0, 5.0]):
        return "A mul gate gives each input the other one: a + b gets b + c = 5."
    return "Begin at the end: 1 arrives at the mul gate. What does it send to a + b, and what to b + c?"


# 3. Why is my gradient None?


@exercise
def check_repair(mine):
    explanation = tapekit.explain(mine, {"gain": 2.0, "shift": 0.1, "limit": 0.2})
    statuses = {name: explanation[name].status for name in ("gain", "shift", "limit")}
    if set(statuses.values()) == {"none"}:
        return "Nothing has a gradient. Does the number leave TensorFlow at the end?"
    if statuses["shift"] != "ok":
        return "shift has no gradient. Its way leads through `centre`: use a tensor, not a variable that is written to."
    if statuses["limit"] != "ok":
        return "limit has no gradient. `hidden > limit` is a jump: make it a soft step with tf.sigmoid."
    if statuses["gain"] != "ok":
        return f"gain: the gradient is {statuses['gain']}."
    value = float(mine(gain=2.0, shift=0.1, limit=0.2))
    if value > 0.744:
        return f"The loss is {value:.3f}, before it was 0.644. Is your soft step too wide? Divide what goes in by 0.1."
    if value < 0.544:
        return (
            f"Each source has a gradient, but the loss is {value:.3f}; before it was 0.644. It must stay the same loss."
        )
    return ""


# 7. A run that went NaN


@exercise
def check_record(mine):
    if mine == 7777:
        return ""
    if mine == 243:
        return "243 is the step. Each step has 32 records: which one of them is it?"
    if mine == 1:
        return "That is the place in the batch. Before that batch come 32 records for each earlier step."
    if mine == 12_819:
        return "That is the bad record of the first series. Load lesson.records(2)."
    return "Train on x2 and y2, find the first bad step, then the record of that batch whose gradient is not finite."


# 5. A training loop you can see


@exercise
def check_rate(mine, fit):
    if close(mine, 0.001, 1e-6):
        return "0.001 is the ratio that you want. At the rate 0.001 the ratio is much smaller: see the first line."
    ratio = fit(float(mine))[1]
    if 0.0007 <= ratio <= 0.0014:
        return ""
    side = "small: take a larger rate" if ratio < 0.001 else "large: take a smaller rate"
    return f"At the rate {mine:.4g} the ratio is {ratio:.1e}. That is too {side}. The ratio grows like the rate."


# 6. Vanishing, exploding, repaired


@exercise
def check_residual(mine, signal):
    if close(mine, 2 ** (1 / 30), 1e-3):
        return "That is the factor of one block. It is sqrt(1 + a²): solve for a."
    if close(mine, (2 ** (1 / 30) - 1) ** 0.5, 1e-3):
        return "The factor of a block is sqrt(1 + a²), not 1 + a²."
    gradients, _ = signal(lambda h, dense: h + mine * dense(tf.nn.relu(h)), 2**0.5)
    grown = float(tf.norm(gradients[0]) / tf.norm(gradients[-1])) ** (30 / 29)
    if abs(mine) != abs(mine) or not 1.9 < grown < 2.1:
        return f"Measured with your a, thirty blocks multiply the signal by {grown:.3g}."
    return ""


# 4. Is this gradient right?


@exercise
def check_log_sum_exp(mine):
    x = tf.constant([1.0, 2.0, 2.5])
    if not close(mine(x), tf.reduce_logsumexp(x)):
        return f"At (1, 2, 2.5) your function returns {mine(x).numpy()}; log(e + e² + e^2.5) is 3.1044."
    gradient = tapekit.gradient(mine, x, unconnected="none")
    if gradient is None:
        return "Your function has no gradient at all. Let the inner function return upstream times the slopes."
    if not close(gradient, tf.nn.softmax(x)):
        return (
            f"Its slopes must add up to 1: move all x up by 1, and the value goes up by 1. Yours: {gradient.numpy()}."
        )
    if not close(tapekit.gradient(lambda x: 5.0 * mine(x), x), 5.0 * tf.nn.softmax(x)):
        return "The slopes are right, but what arrives from above is lost. Multiply them by `upstream`."
    return "" if tapekit.check_gradient(mine, x) else "check_gradient does not pass."


# 8. One gradient for each example


@exercise
def check_change(mine):
    mine = np.asarray(mine, "float64")
    if mine.shape == (2,):
        return "Two numbers came, one for each input. You want one for each output: a mixture of the columns."
    if mine.shape == (3, 2):
        return "That is the whole Jacobian. Multiply it with the move (0.02, -0.01), by one call."
    if close(mine, [0.04, 0.19, -0.03], 1e-5):
        return ""
    if close(mine, [0.0404, 0.1898, -0.03], 1e-5):
        return "That is the change itself, f after minus f before. To first order means: slopes times the move."
    return f"For one of them by hand: the first output has the slopes 2 and 0, so it changes by 0.04. Yours: {mine}."


# 9. Curvature


@exercise
def check_largest_step(mine, valley):
    if close(mine * 1001.6, 1.0):
        return "With s = 1 / c a step lands at the bottom at once. A larger one jumps over it, but can come closer."
    if close(mine * 0.4, 2.0, 0.01):
        return "That step suits the flat direction. The limit is set by the steep one."
    ends = []
    for step in (0.95 * mine, 1.05 * mine):
        point = np.array([1.0 - 0.89e-3, 1.0 + 0.45e-3])  # 0.001 from the bottom, in the steep direction
        for _ in range(40):
            point = point - step * tapekit.gradient(valley, point).numpy()
        ends.append(float(np.hypot(*(point - 1.0))))
    if ends[0] < 1e-3 < ends[1]:
        return ""
    return f"Forty steps from a distance of 0.001 end at {ends[0]:.1e} with 0.95 s, and at {ends[1]:.1e} with 1.05 s."


# 10. Teaching a network an equation


@exercise
def check_friction(mine, solve, ansatz, first):
    x = tf.reshape(tf.linspace(0.0, 6.28, 64), [64, 1])
    found = mine(tf.exp, x)  # u, u' and u'' of exp are all exp(x), so the factors of the three add up
    if tuple(found.shape) != (64, 1):
        return f"For x of shape [64, 1] the residual must have that shape too, not {tuple(found.shape)}."
    factors = float(found[0, 0])
    if close(abs(factors), 3.2):
        u, _ = solve(ansatz, mine)
        truth = tf.exp(-0.6 * x) * tf.sin(0.8 * x) / 0.8
        error = float(tf.reduce_max(tf.abs(u(x) - truth)))
        return "" if error < 5e-3 else f"The trained u is off by {error:.2g}."
    if close(abs(factors), 2.0):
        return "The friction is missing: u' must be in it, `first(u)(x)`."
    return "Bring all terms of u'' = -u - 1.2 u' to one side, and mind the signs. What stands there should become 0."


# 11. What does the network look at?


@exercise
def check_friend(mine, x, accuracy):
    if tuple(mine.shape) != tuple(x.shape):
        return f"The images have the shape {tuple(x.shape)}, yours {tuple(mine.shape)}."
    moved, least, most = np.max(np.abs(mine - x)), np.min(mine), np.max(mine)
    if moved > 0.1 + 1e-6:
        return f"Some pixel moved by {moved:.2g}. At most 0.1 is allowed."
    if least < 0 or most > 1:
        return f"Your pixels go from {least:.2g} to {most:.2g}. Clip them to 0 to 1."
    if accuracy(mine) < accuracy(x):
        return f"Only {accuracy(mine):.1%} are right now. The gradient of the loss points to where the loss grows."
    return "" if accuracy(mine) > 0.95 else f"{accuracy(mine):.1%} are right. Use the gradient of the loss."


# 12. Where does it look?


@exercise
def check_bare(mine, convolutions, images, corners, shares):
    mine = np.asarray(mine, "float64")
    if mine.shape != (2,):
        return f"Two shares are needed, as `shares(heat, corners)` returns them; yours has the shape {mine.shape}."
    if close(mine, shares(np.sum(convolutions(images), axis=3), corners)):
        return ""
    if mine.max() > 0.3:
        return "One pattern is still clearly hotter. Leave out the weights: add up `convolutions(both)` over axis 3."
    return "Add up `convolutions(both)` over its last axis, `[200, 24, 24]` is left, and give that to `shares`."
