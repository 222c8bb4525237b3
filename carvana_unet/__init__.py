__version__ = "0.2.0"
__all__ = ["Predictor"]

from typing import TYPE_CHECKING
if TYPE_CHECKING: from .prediction import Predictor


def __getattr__(name):
    "Import `Predictor` when it is first asked for: `import carvana_unet` alone stays light"
    if name != "Predictor": raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import cutouts as cutouts  # adds `Prediction.cutout` and `Prediction.save`
    from .prediction import Predictor
    return Predictor
