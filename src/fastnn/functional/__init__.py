"""Stateless operations: ``F.op``, ``F.op_forward`` (result and context) and ``F.op_backward`` (gradients)."""
