"""The challenger in the champion's shadow: it captions a share of the pictures, and only whether it agrees is kept."""

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING

from captioning.serving.batching import Batches, WaitingPicture
from captioning.serving.measures import Measures

if TYPE_CHECKING:
    import torch

    from captioning.records import Hypothesis
    from captioning.serving.models import LoadedModel

LOG = logging.getLogger(__name__)


class Shadow:
    """Captions some pictures a second time, when nothing waits for the device.

    Args:
        share: of the pictures, 0 to 1.
        batches: of the device.
        max_waiting: pictures in the queue beyond which none is added.
        measures: which count agreement.
    """

    def __init__(self, *, share: float, batches: Batches, max_waiting: int, measures: Measures) -> None:
        self._share, self._batches, self._max_waiting, self._measures = share, batches, max_waiting, measures

    def takes(self, number: int) -> bool:
        """Tell whether the picture of this number is of the share: the same picture always is, or never."""
        return number < self._share * 2**32

    def follow(
        self,
        challenger: "LoadedModel",
        inputs: "torch.Tensor",
        number: int,
        shown: "list[Hypothesis]",
        by: "LoadedModel",
    ) -> None:
        """Let the challenger caption a picture that the champion has captioned, and compare their first captions."""
        if self._batches.num_waiting >= self._max_waiting:
            self._measures.shadow_dropped()
            return

        def compare(hypotheses: "Future[list[Hypothesis]]") -> None:
            if hypotheses.cancelled() or hypotheses.exception():
                self._measures.shadow_dropped()
                return
            is_same = hypotheses.result()[0].text == shown[0].text
            self._measures.shadow(is_same=is_same)
            versions = {"champion": by.version, "challenger": challenger.version}
            LOG.info("shadow", extra={"same": is_same, **versions})

        picture = WaitingPicture(model=challenger, inputs=inputs, number=number, top=1, with_attention=False)
        picture.hypotheses.add_done_callback(compare)
        self._batches.put(picture)
