"""The picture of a `GradientCheck`: the error of a difference against its step, the V-shaped curve."""

from typing import Any

import numpy as np

from tapekit.plots.axes import COLOURS, axes_or_new, kind_of

MARKERS = "os^Dvp"  # one for each colour, for greyscale


def plot_check(check: Any, *, ax: Any = None) -> Any:
    """Draw, for each source, the error of the central difference against the step; of many sources, the six worst.

    A large step has a truncation error (slope 2 on the log axes), a small one a rounding error (slope -1). A ring marks
    the step that was used, at the height of the uncertainty, which is below the curve because neighbouring steps are
    extrapolated. Where the check did not pass, a dashed line marks the error of the tape's gradient.

    Args:
        check: what `tapekit.check_gradient` returned.
        ax: the axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        TypeError: `check` is something else.
    """
    if isinstance(check, type) or not hasattr(check, "raise_if_failed"):
        raise TypeError(f"plot_check: check is {kind_of(check)}. A GradientCheck is needed. Call check_gradient first.")
    ax = axes_or_new("plot_check", ax, (6.4, 4.8))
    sources = sorted(check, key=lambda source: (source.verdict == "pass", -np.nan_to_num(source.rel_error, nan=np.inf)))
    for source, colour, marker in zip(sources, COLOURS, MARKERS, strict=False):
        steps, error = np.array(source.steps), np.abs(np.array(source.differences) - source.numeric)
        drawn = np.isfinite(error) & (error > 0)
        measured, wrong = np.isfinite(source.numeric), source.verdict != "pass" and source.abs_error != 0
        said = ", nothing measured" if not measured else f", tape off by {source.abs_error:.2g}" if wrong else ""
        look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2}
        ax.loglog(steps[drawn], error[drawn], label=f"{source.name}: {source.verdict}{said}", **look)
        if drawn.sum() > 2 and np.isfinite(source.uncertainty) and source.uncertainty > 0:
            ring: Any = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.8, "color": colour}
            ax.plot(source.step, source.uncertainty, "o", **ring)
        if wrong and np.isfinite(source.abs_error):
            ax.axhline(source.abs_error, color=colour, linestyle="--", linewidth=1.2)
    if any(line.get_markerfacecolor() == "none" for line in ax.lines):
        ax.plot([], [], "o", color="0.3", markerfacecolor="none", label="the step used, at its uncertainty")
    if any(line.get_linestyle() == "--" for line in ax.lines):
        ax.plot([], [], "--", color="0.3", label="how far the tape is off")
    several = f", the worst {len(COLOURS)} of {len(sources)} sources" if len(sources) > len(COLOURS) else ""
    ax.set_title(f"Error against step: {check.verdict}{several}", fontsize=11)
    ax.set(xlabel="step h", ylabel="error of the central difference")
    ax.legend(fontsize=8)
    return ax
