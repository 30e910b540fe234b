from typing import Any

from numpy.typing import NDArray

FORMATS: dict[str, bytes]

def stream(array: NDArray[Any]) -> object: ...
