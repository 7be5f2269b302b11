"""A case as something to run: the timed call and its check, whichever family it belongs to."""

import functions
import norms
import objects
from cases import Case

Subject = objects.Subject


def is_norm(case: Case) -> bool:
    operation = case.operation.removesuffix("_backward")
    return operation.endswith("_norm") or operation == "standardize"


def subject(case: Case) -> Subject:
    """(run, verify): `verify` raises unless the results are right."""
    operation = case.operation.removesuffix("_backward")
    if operation in functions.FUNCTIONS or operation in functions.RANDOM:
        return functions.ours(case)
    if is_norm(case):
        return norms.ours(case)
    return objects.build(case)
