"""torchvision without torch's compiler, which takes half of the time until a first caption (6 s of 11 on two cores).

torchvision 0.28 imports all of torch._dynamo, and sympy with it, for one function that is called where boxes of objects
are cut out of pictures on a GPU: https://github.com/pytorch/vision/blob/main/torchvision/ops/roi_align.py. While it is
imported, a stand-in has that function, which imports the compiler once it is called.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo.utils"


def torchvision() -> ModuleType:
    """Import torchvision."""
    if COMPILER in sys.modules or "torchvision" in sys.modules:
        return importlib.import_module("torchvision")
    stand_in = ModuleType(COMPILER)
    stand_in.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules[COMPILER] = stand_in
    try:
        return importlib.import_module("torchvision")
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            del sys.modules[COMPILER]


def _is_compile_supported(device_type: Any) -> Any:
    return importlib.import_module(COMPILER).is_compile_supported(device_type)
