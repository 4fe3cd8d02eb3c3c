"""The section `train` of params.yaml: a model, and the phases in which it is trained."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from captioning import lookup
from captioning.encoders import Settings as EncoderSettings
from captioning.generation import GenerationSettings
from captioning.language_model import LanguageModelSettings
from captioning.metrics import MetricNames
from captioning.params import Settings, named_part
from captioning.training.augmentation import AugmentationSettings
from captioning.training.objectives import ObjectiveSettings
from captioning.training.optimizers import OptimizerSettings
from captioning.training.schedules import ScheduleSettings


class WordVectorSettings(Settings):
    """What the embeddings of the words begin with."""

    file: str
    """`none`, or a text file of vectors (GloVe) in weights/."""
    trainable: bool


class ValidationSettings(Settings):
    """What is done after each epoch with the val images."""

    generation: GenerationSettings
    metrics: MetricNames
    """`meteor` takes seconds."""
    select: str
    """Score of the decoded captions whose best epoch is kept, such as `bleu_4`."""


class TuningSettings(Settings):
    """Which part of the encoder a phase trains."""

    train_from: str | None
    """null: none, its features are computed once; `all`; or the first module that is trained, such as `layer2`."""
    learning_rate: float = Field(ge=0)
    """Of the encoder, at its peak."""


class PhaseSettings(Settings):
    """One phase of training; it begins with the best weights of all phases before."""

    objective: ObjectiveSettings
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Images a step, over all processes; all captions of an image share its encoding."""
    encoder: TuningSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    clip_norm: float | None = Field(gt=0)
    """Of the gradient of all parameters together."""
    clip_value: float | None = Field(gt=0)
    """Of each element of the gradient."""
    average_decay: float | None = Field(gt=0, lt=1)
    """Of the exponential moving average of the weights (EMA) that is validated and kept in place of the last ones.

    After n steps it is at most (1 + n) / (10 + n).
    """
    precision: Literal["float32", "bfloat16"]
    """Of the matrix products in training; bfloat16 is faster where the hardware has it (AMX, GPUs)."""
    augmentation: AugmentationSettings | None
    """Of the train images; a frozen encoder then runs at every step, or `views` of each image are kept."""
    patience: int | None = Field(ge=1)
    """Epochs without a better score after which the phase ends."""
    max_gap: float | None = Field(gt=0)
    """The phase ends once the loss on val exceeds that on train by more."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        views = self.augmentation and self.augmentation.views
        if self.augmentation and self.augmentation.flip and (views or self.objective.name == "self_critical"):
            raise ValueError(
                "augmentation.flip exchanges left and right in the captions of the mirrored images, which "
                f"{'cached views' if views else 'the references of a reward'} cannot follow: set flip to false"
            )
        if self.max_gap and self.objective.name == "self_critical":
            raise ValueError(
                f"max_gap ({self.max_gap}) compares losses, and self_critical has a reward instead: set max_gap to null"
            )
        if views and self.encoder.train_from is not None:
            raise ValueError(
                f"augmentation.views ({views}) keeps features of a frozen encoder, but encoder.train_from is "
                f"{self.encoder.train_from!r}: set one of them to null"
            )
        return self


class TrainSettings(Settings):
    """The `train` section."""

    seed: int
    max_hours: float | None = Field(gt=0)
    """Training ends with the epoch in which so much time has passed; what comes out then depends on the machine."""
    encoder: EncoderSettings
    decoder: Annotated[SerializeAsAny[Settings], BeforeValidator(named_part("decoders"))]
    word_vectors: WordVectorSettings
    language_model: LanguageModelSettings | None
    """Learned from the train captions, saved with the model, for `rerank`."""
    validation: ValidationSettings
    phases: list[PhaseSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _suit_the_decoder(self) -> Self:
        name = self.decoder.name  # type: ignore[attr-defined]
        decoder = lookup.find("decoders", name).Decoder
        for number, phase in enumerate(self.phases):
            objective, where = phase.objective, f"phases.{number}.objective"
            if (
                objective.name == "cross_entropy"
                and objective.attention_penalty
                and not decoder.has_full_attention
            ):
                raise ValueError(
                    f"{where}.attention_penalty is {objective.attention_penalty}, but the decoder {name} returns no "
                    "attention in training, or may look away from the picture, which the penalty would end: "
                    "set it to 0, or choose a decoder that always attends, such as soft_attention"
                )
            if objective.name == "self_critical" and decoder.is_drawing:
                raise ValueError(
                    f"{where} self_critical rewards words, and the decoder {name} also draws cells, which it would not "
                    "learn from: choose another decoder, such as soft_attention"
                )
        return self
