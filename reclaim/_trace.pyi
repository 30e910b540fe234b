from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from reclaim._core import Core

EVENT_DTYPE: np.dtype[np.void]
HARDIRQ: int
NEED_RESCHED: int

@disjoint_base
class Tracer:
    most: int
    def __new__(cls, core: Core) -> Tracer: ...
    def run(self, end: int, *, actions: int = ..., touches: int = 0,
            events: int = ...) -> tuple[NDArray[Any], str]: ...
