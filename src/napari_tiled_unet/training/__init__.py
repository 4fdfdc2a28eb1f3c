"""Teaching a network from labelled images: the loop is ``loop.py``, what it needs lies beside it.

=================  ===================================================================
pairs.py           images and labels brought together
survey.py          what the labels hold, and the meaning of sparse ones
grounds.py         training and validation never meet
choices.py         what is chosen from the data, and why; plan.py is the result
batches.py         patch and batch of a step, as large as helps and fits
subject.py         whether the labels can be objects, or classes
augmentation.py    patches varied
patches.py         which patches, from where
step.py            one step: batch, rate, loss
state.py           the checkpoint
preparation.py     all of it before the first step
examination.py     the held-out part scored
curves.py          what is seen of it afterwards
happenings.py      what a training says
=================  ===================================================================
"""

from __future__ import annotations

from napari_tiled_unet.training.happenings import Prepared, StepDone, Trained, Validated
from napari_tiled_unet.training.loop import iter_train, train

__all__ = ["Prepared", "StepDone", "Trained", "Validated", "iter_train", "train"]
