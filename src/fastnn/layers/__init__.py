"""Objects that hold parameters and running statistics; thin over `fastnn.functional`."""

from fastnn.layers.base import Layer, Parameter

__all__ = ["Layer", "Parameter"]
