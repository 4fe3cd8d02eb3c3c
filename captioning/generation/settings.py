"""How captions are made of next-word scores: `evaluate.generation` and `train.validation.generation` of params.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from captioning import grammars
from captioning.grammars import GrammarName
from captioning.normalisers import NormaliserName
from captioning.params import Settings


class LengthNormalisation(Settings):
    """What a caption's log-probability is divided by where captions of several lengths are compared.

    n is the number of its words, and of `<eos>` where it has ended. Without, short captions are preferred.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: Literal["average", "wu"]
    """average: n^alpha, with an alpha of 1 the mean; wu: ((5 + n) / 6)^alpha (Wu et al., 2016, equation 14)."""
    alpha: float = Field(ge=0, le=10)

    def divisor(self, num_terms: torch.Tensor) -> torch.Tensor:
        """Return what the log-probabilities of captions of `num_terms` terms are divided by."""
        length = num_terms if self.name == "average" else (5 + num_terms) / 6
        return length**self.alpha


class RerankSettings(Settings):
    """What is done with all captions of an image once they are there, before the best are taken.

    They are ranked by what they were compared by (`length_normalisation`), plus `validity` where the normaliser reads
    them, plus `language_model` times their log-probability in the language model of the train captions.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    normaliser: NormaliserName
    """A module of captioning/normalisers."""
    replaces_text: bool
    """Whether captions that it reads are given in the form that it writes."""
    validity: float = Field(ge=0)
    """In nats; large numbers put all valid captions first."""
    language_model: float = Field(ge=0)
    """Weight; above 0 the model must have one (`train.language_model`)."""


class ConstraintSettings(Settings):
    """What a caption must be like, whichever way it is made: kept at each word, so that its probability stays true."""

    model_config = ConfigDict(allow_inf_nan=False)

    min_words: int = Field(ge=0)
    """At least so many words a caption; with 0 it may be empty."""
    max_words: int = Field(ge=1)
    """At most so many; a caption that has not ended by then is cut."""
    no_repeat_ngram: int | None = Field(ge=1)
    """No caption has the same so many words in a row twice."""
    bad_endings: list[str]
    """Words that no caption ends with, neither by itself nor cut; what the vocabulary lacks does not matter."""
    grammar: GrammarName
    """A module of captioning/grammars, or none: no caption is begun that it could not complete in `max_words`."""
    rerank: RerankSettings | None
    """null leaves captions as they were found."""

    @field_validator("bad_endings")
    @classmethod
    def _are_words(cls, bad_endings: list[str]) -> list[str]:
        for word in bad_endings:
            if len(word.split()) != 1:
                raise ValueError(
                    f"{word!r} is not one word; a caption's last word is looked at, and no phrase"
                )
        return bad_endings

    @model_validator(mode="after")
    def _leaves_a_length(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words ({self.min_words}) is more than max_words ({self.max_words}): lower one, or raise the other"
            )
        if self.grammar != grammars.NONE and (self.min_words > 1 or self.no_repeat_ngram or self.bad_endings):
            raise ValueError(
                f"grammar: {self.grammar} decides alone which words may come: with it go min_words of 0 or 1, "
                "no_repeat_ngram: null and bad_endings: []"
            )
        return self

    def replaced(self, **changes: Any) -> Self:
        """Return these settings with some replaced, such as `beam_width=5`.

        Raises:
            ValueError: a key that they do not have, or a value that is refused.
        """
        if unknown := sorted(set(changes) - set(type(self).model_fields)):
            raise ValueError(
                f"no {', '.join(unknown)} in {type(self).__name__}; it has {', '.join(type(self).model_fields)}"
            )
        try:
            return type(self).model_validate(self.model_dump() | changes)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or type(self).__name__
            raise ValueError(f"{place}: {first['msg']}, got {first['input']!r}") from None


class BeamSettings(ConstraintSettings):
    """Beam search: the most probable captions that a search of limited width finds; of width 1, greedy."""

    method: Literal["beam"]
    beam_width: int = Field(ge=1)
    """K, captions kept an image at each word."""
    length_normalisation: LengthNormalisation | None
    """null compares plain log-probabilities."""

    @property
    def num_captions(self) -> int:
        """Return how many captions an image gets."""
        return self.beam_width

    def at_least(self, num_captions: int) -> Self:
        """Return settings that give an image so many captions."""
        return self.replaced(beam_width=max(self.beam_width, num_captions))


class DiverseBeamSettings(ConstraintSettings):
    """Diverse beam search: Vijayakumar et al. (2018), with Hamming diversity.

    Groups choose their words one after the other; a word that groups before have chosen at this place is worth less.
    """

    method: Literal["diverse_beam"]
    beam_width: int = Field(ge=1)
    """K, captions kept an image at each word, in all groups together."""
    num_groups: int = Field(ge=1)
    """G, which share the beam's width evenly."""
    diversity_penalty: float = Field(ge=0, le=1000)
    """Lambda, taken from the log-probability of a word for each caption of groups before that has chosen it here."""
    length_normalisation: LengthNormalisation | None
    """null compares plain log-probabilities."""

    @model_validator(mode="after")
    def _shares_evenly(self) -> Self:
        if self.beam_width % self.num_groups:
            raise ValueError(
                f"{self.num_groups} groups cannot share a beam of width {self.beam_width} evenly: "
                "choose a num_groups that divides beam_width"
            )
        return self

    @property
    def num_captions(self) -> int:
        """Return how many captions an image gets."""
        return self.beam_width

    def at_least(self, num_captions: int) -> Self:
        """Return settings that give an image so many captions."""
        groups = self.num_groups
        return self.replaced(beam_width=max(self.beam_width, -(-num_captions // groups) * groups))


class SampleSettings(ConstraintSettings):
    """Captions drawn at random from the model, the most probable of them first."""

    method: Literal["sample"]
    num_samples: int = Field(ge=1)
    """K, captions drawn an image."""
    temperature: float = Field(ge=1e-4, le=1000)
    """Log-probabilities are divided by it: below 1 likely words become likelier, above 1 less so."""
    top_k: int | None = Field(ge=1)
    """Draws from the so many likeliest words (Fan et al., 2018)."""
    top_p: float | None = Field(gt=0, le=1)
    """Draws from the nucleus, the fewest words that share so much of the probability (Holtzman et al., 2020)."""
    seed: int = Field(ge=0)
    """Decides, with the number of the image, what is drawn."""

    @property
    def num_captions(self) -> int:
        """Return how many captions an image gets."""
        return self.num_samples

    def at_least(self, num_captions: int) -> Self:
        """Return settings that give an image so many captions."""
        return self.replaced(num_samples=max(self.num_samples, num_captions))


GenerationSettings = Annotated[
    BeamSettings | DiverseBeamSettings | SampleSettings, Field(discriminator="method")
]

PLAIN_BEAM = BeamSettings(
    method="beam",
    beam_width=3,
    length_normalisation=None,
    min_words=1,
    max_words=24,
    no_repeat_ngram=None,
    bad_endings=[],
    grammar=grammars.NONE,
    rerank=None,
)

NEWER = {"grammar": grammars.NONE, "rerank": None}
"""What models that were registered before these settings were made had instead of them."""


def read_settings(values: Any) -> GenerationSettings:
    """Return the settings of a mapping, as params.yaml and registered models have them, of old ones too."""
    stated = NEWER | dict(values) if isinstance(values, Mapping) else values
    settings: GenerationSettings = TypeAdapter(GenerationSettings).validate_python(stated)
    return settings
