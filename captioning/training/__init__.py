"""Examples -> a trained captioner.

`settings.py` says what a training is: a model, and phases, each with an objective (`objectives.py`), an optimiser
(`optimizers.py`), a schedule of learning rates (`schedules.py`) and changes of the images (`augmentation.py`).
`engine.py` goes through the phases and can be killed at any moment; `phases.py` takes the steps of one of them;
`validation.py` scores an epoch.
"""

from captioning.training.engine import Training
from captioning.training.settings import TrainSettings

__all__ = ["TrainSettings", "Training"]
