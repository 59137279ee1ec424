"""What the plots share: axes to draw on, a legend that covers nothing, colours for every eye."""

from collections.abc import Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: for colour-blind eyes
BELOW = 0.45  # inches: under the ticks and the label of the x axis


def axes_or_new(ax: Any, size: tuple[float, float]) -> Any:
    """`ax`, or the axes of a new figure of that size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def legend_below(ax: Any, handles: Sequence, labels: Sequence[str]) -> None:
    """A legend under the axes, where no line runs."""
    from matplotlib.transforms import ScaledTranslation

    under = ax.transAxes + ScaledTranslation(0, -BELOW, ax.figure.dpi_scale_trans)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under}
    ax.legend(handles, labels, fontsize="small", ncols=3, frameon=False, **place)
