"""A source that the target does not depend on: what `fn` used in its place."""

import tensorflow as tf

from tapekit._capture import place


def unread(recording, flow, call, index, way):
    entry = recording.sources[index]
    uses = [op for op in recording.ops if any(t is entry for t in recording.inputs[op])]
    if way is not None:
        return {"cause": "not_used", "op": way.last.type, "at": place(way.last.traceback), "shape_only": True}
    at = next((found for op in uses if (found := place(op.traceback))), None)
    return {"cause": "not_used", "at": at, "read": bool(uses)}
