"""Maximum and average pooling of images, and their gradients, for both image layouts."""

from fastnn.functional.pool.average import avg_pool2d, avg_pool2d_backward, avg_pool2d_forward
from fastnn.functional.pool.call import PoolContext
from fastnn.functional.pool.maximum import max_pool2d, max_pool2d_backward, max_pool2d_forward

__all__ = [
    "PoolContext",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_forward",
]
