"""`names` and `world` of the package, by path when the package itself cannot be imported."""

import importlib
import importlib.util
import pathlib
import sys
import types

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _by_path(name):
    """Load reclaim.<name> from its file, without running reclaim/__init__.py."""
    if "reclaim" not in sys.modules:
        package = types.ModuleType("reclaim")
        package.__path__ = [str(_ROOT / "reclaim")]
        sys.modules["reclaim"] = package
    spec = importlib.util.spec_from_file_location(f"reclaim.{name}", _ROOT / "reclaim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"reclaim.{name}"] = module
    spec.loader.exec_module(module)
    return module


def load(name):
    if str(_ROOT) not in sys.path:
        sys.path.append(str(_ROOT))
    try:
        return importlib.import_module(f"reclaim.{name}")
    except ImportError:
        return _by_path(name)


names = load("names")
world = load("world")
