PLUMBING = {"ReadVariableOp", "Identity", "EnsureShape"}
FLAT = {"Sign"}
UNWATCHED = ("{} tensor", "{} variable")


def words(cause, name, **facts):
    return f"{cause} {facts}", ""


def text(findings):
    return "\n".join(f"{f.source}: {f.status} ({f.cause}) op={f.op} line={f.line} {f.path} {f.why} {f.advice}" for f in findings)
