"""What audio towers differ in: which part of a checkpoint they are, their window, and how their states lie in time.

b sounds, t frames, f bands of frequency, d width, n samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Protocol, cast, final

from einops import reduce
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    AutoModel,
    ClapAudioModel,
    ClapFeatureExtractor,
    PretrainedConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modalign.errors import ModelError


class Extractor(Protocol):
    """What makes a tower's input of samples: a feature extractor of transformers, as far as all of them are alike."""

    sampling_rate: int
    feature_size: int

    def __call__(self, raw_speech: object, *, sampling_rate: int, return_tensors: str) -> Mapping[str, object]: ...

    def to_json_string(self) -> str: ...

    def save_pretrained(self, save_directory: Path) -> object: ...


class Family(ABC):
    """One kind of audio tower.

    kinds: the `model_type` of its checkpoints.
    library: the class of transformers that is the tower alone.
    names: what a whole checkpoint calls the tower's weights, as patterns, with what the tower calls them.
    layered: whether states of its inner layers can be taken.
    """

    kinds: ClassVar[tuple[str, ...]]
    library: ClassVar[type]
    names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    layered: ClassVar[bool] = True

    def __init__(self, config: PretrainedConfig, extractor: Extractor) -> None:
        self.config, self.extractor = config, extractor
        self.check()

    @classmethod
    def part(cls, config: PretrainedConfig) -> PretrainedConfig:
        """The tower's own config, of that of a whole checkpoint."""
        return config

    @property
    def width(self) -> int:
        """Of a state (d)."""
        return self.config.hidden_size

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return self.config.num_hidden_layers

    @property
    def least(self) -> int:
        """Samples of the shortest sound that gives a frame."""
        return 1

    @property
    @abstractmethod
    def most(self) -> int | None:
        """Samples of the tower's window; None where it has none."""

    @abstractmethod
    def count(self, samples: int) -> int:
        """How many frames begin within a sound: those of padding behind it are cut off."""

    def arrange(self, states: Tensor) -> Tensor:
        """The tower's states in order of time, ``b t d``."""
        return states

    @abstractmethod
    def check(self) -> None:
        """Raise a `ModelError` where tower and extractor do not fit, or the tower is of a sort that is not known."""

    def agree(self, what: str, own: object, extracted: object) -> None:
        """Raise where tower and extractor differ in something."""
        if own != extracted:
            raise ModelError(
                f"the feature extractor beside this model is not its own: {what} differs",
                got=f"{own} in config.json, {extracted} in preprocessor_config.json",
                fix="save the checkpoint's own extractor there",
            )


@final
class Whisper(Family):
    """The encoder of Whisper, https://arxiv.org/abs/2212.04356: a fixed window, filled up with silence.

    Its convolutions halve the frames of the spectrogram; frames that begin behind the sound are cut off, so that five
    seconds give 250 embeddings and not 1500.
    """

    kinds = ("whisper",)
    library = WhisperEncoder
    names = MappingProxyType({r"^model\.encoder\.": "", r"^encoder\.": ""})

    @property
    def own(self) -> WhisperFeatureExtractor:
        """The extractor, by its own type."""
        return cast(WhisperFeatureExtractor, self.extractor)

    @property
    def width(self) -> int:
        return self.config.d_model

    @property
    def depth(self) -> int:
        return self.config.encoder_layers

    @property
    def most(self) -> int:
        return self.own.n_samples

    def count(self, samples: int) -> int:
        frames = -(-samples // self.own.hop_length)
        return -(-frames // 2)

    def check(self) -> None:
        self.agree("the number of mels", self.config.num_mel_bins, self.extractor.feature_size)
        self.agree("the window in frames", 2 * self.config.max_source_positions, self.own.nb_max_frames)

    @property
    def plain(self) -> bool:
        """Whether `log_mel` gives what the extractor gives: it neither dithers nor pads with anything but silence."""
        return type(self.own) is WhisperFeatureExtractor and not self.own.dither and not self.own.padding_value


@final
class Clap(Family):
    """The audio tower of CLAP, https://arxiv.org/abs/2211.06687: a fixed window, filled up by repeating the sound.

    Its states lie on a grid of time and frequency and are averaged over frequency.
    """

    kinds = ("clap", "clap_audio_model")
    library = ClapAudioModel
    names = MappingProxyType({r"^audio_model\.": ""})
    layered = False  # its stages have grids and widths of their own

    @classmethod
    def part(cls, config: PretrainedConfig) -> PretrainedConfig:
        return getattr(config, "audio_config", config)

    @property
    def own(self) -> ClapFeatureExtractor:
        """The extractor, by its own type."""
        return cast(ClapFeatureExtractor, self.extractor)

    @property
    def width(self) -> int:
        return self.config.patch_embeds_hidden_size * 2 ** (len(self.config.depths) - 1)

    @property
    def most(self) -> int:
        return self.own.nb_max_samples

    def count(self, samples: int) -> int:
        config = self.config
        side = config.spec_size // 2 ** (len(config.depths) - 1)
        high, wide = (side // stride for stride in config.patch_stride)
        bands = high // (config.spec_size // config.num_mel_bins)
        frames = wide * (high // bands)
        return -(-frames * samples // self.most)

    def arrange(self, states: Tensor) -> Tensor:
        return reduce(states, "b d f t -> b t d", "mean")

    def check(self) -> None:
        self.agree("the number of mels", self.config.num_mel_bins, self.extractor.feature_size)


@final
class Spectrogram(Family):
    """The Audio Spectrogram Transformer, https://arxiv.org/abs/2104.01778: a fixed window, filled up with zeros.

    Its patches lie on a grid of time and frequency and are averaged over frequency, as in LTU,
    https://arxiv.org/abs/2305.10790; the two tokens of the classifier are left out.
    """

    kinds = ("audio-spectrogram-transformer",)
    library = AutoModel

    @property
    def own(self) -> ASTFeatureExtractor:
        """The extractor, by its own type."""
        return cast(ASTFeatureExtractor, self.extractor)

    @property
    def least(self) -> int:
        return self.extractor.sampling_rate * 25 // 1000  # Kaldi's frame

    @property
    def most(self) -> int:
        return self.least + self.config.max_length * self._hop - 1

    @property
    def _hop(self) -> int:
        return self.extractor.sampling_rate * 10 // 1000

    def count(self, samples: int) -> int:
        config = self.config
        patches = (config.max_length - config.patch_size) // config.time_stride + 1
        frames = 1 + (samples - self.least) // self._hop
        return min(patches, -(-frames // config.time_stride))

    def arrange(self, states: Tensor) -> Tensor:
        bands = (self.config.num_mel_bins - self.config.patch_size) // self.config.frequency_stride + 1
        return reduce(states[:, 2:], "b (f t) d -> b t d", "mean", f=bands)

    def check(self) -> None:
        self.agree("the number of mels", self.config.num_mel_bins, self.own.num_mel_bins)
        self.agree("the window in frames", self.config.max_length, self.own.max_length)


@final
class Waveform(Family):
    """Towers over samples: wav2vec 2.0, https://arxiv.org/abs/2006.11477, HuBERT and WavLM; any length."""

    kinds = ("wav2vec2", "hubert", "wavlm")
    library = AutoModel

    @property
    def least(self) -> int:
        samples = 1
        for kernel, stride in reversed(list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def most(self) -> None:
        return None

    def count(self, samples: int) -> int:
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def check(self) -> None:
        if getattr(self.config, "add_adapter", False):
            raise ModelError(
                "towers with an adapter that shortens their output are not known", got="add_adapter=True in config.json"
            )
        # masks and skipped layers would make two passes over one sound differ
        for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0)):
            setattr(self.config, name, value)


FAMILIES: Mapping[str, type[Family]] = MappingProxyType(
    {kind: family for family in (Whisper, Clap, Spectrogram, Waveform) for kind in family.kinds}
)
