"""A case as something to run: the timed call and its check, whichever family it belongs to."""

import functions
import networks
import norms
import objects
from case import Case

Subject = objects.Subject


NORMS = {"batch_norm", "layer_norm", "rms_norm", "instance_norm", "group_norm", "standardize"}


def is_norm(case: Case) -> bool:
    return case.operation.removesuffix("_backward") in NORMS


def subject(case: Case) -> Subject:
    """(run, verify): `verify` raises unless the results are right."""
    operation = case.operation.removesuffix("_backward")
    if operation in functions.FUNCTIONS or operation in functions.RANDOM:
        return functions.ours(case)
    if is_norm(case):
        return norms.ours(case)
    if operation in networks.BUILDERS:
        return networks.BUILDERS[operation](case)
    return objects.build(case)
