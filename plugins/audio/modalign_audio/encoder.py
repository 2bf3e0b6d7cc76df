"""Sounds to embeddings: the audio towers of transformers, by folder or id.

c channels, n samples, b sounds, t frames, m embeddings, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Self, cast, final

import torch
from einops import rearrange
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoFeatureExtractor, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from modalign.batch import Medium
from modalign.errors import CheckpointError, ConfigError, DataError, ModelError, ShapeError
from modalign.roles import Content, Encoder
from modalign_audio.config import AudioEncoderOptions
from modalign_audio.families import FAMILIES, Extractor, Family, Whisper
from modalign_audio.ops.log_mel import log_mel

_FAILURES = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError)


@final
class AudioEncoder(Encoder):
    """One embedding per frame of a sound: Whisper's encoder, CLAP's audio tower, AST, wav2vec 2.0, HuBERT or WavLM.

    Of a checkpoint of two parts only the audio tower is read. Every tower takes one channel; others are averaged. What
    a tower's fixed window holds behind the sound is cut off, so that the number of embeddings follows its length; a
    sound longer than the window is refused.

    >>> from tempfile import TemporaryDirectory
    >>> from modalign_audio.testing import tiny_audio
    >>> with TemporaryDirectory() as folder:
    ...     encoder = AudioEncoder.load(str(tiny_audio(folder, "whisper")), pool=2)
    >>> second = Content(modality="audio", tensor=torch.zeros(1, 16000), rate=16000.0)
    >>> encoder([encoder.prepare(second)])[0].shape  # 16000 / 160 / 2 / 2
    torch.Size([25, 32])
    """

    modality: str = "audio"

    def __init__(
        self,
        tower: PreTrainedModel,
        extractor: Extractor,
        family: Family,
        options: AudioEncoderOptions | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.extractor = extractor
        self.family = family
        self.options = options or AudioEncoderOptions()
        self.width = family.width
        self.rate = float(extractor.sampling_rate)
        settings = hashlib.sha256(extractor.to_json_string().encode()).hexdigest()
        self.facts = MappingProxyType({**self.options.model_dump(exclude={"features"}), "extractor": settings})
        _check_layer(family, self.options.layer)

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> Self:
        chosen, fitted = _options(options), _fitted(path, revision)
        return cls(_tower(path, revision, dtype or torch.float32, fitted), fitted.extractor, fitted, chosen)

    @classmethod
    def measure(cls, path: str, *, revision: str | None = None, **options: object) -> int | None:
        _options(options)
        return _fitted(path, revision).width

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tower.save_pretrained(folder)
        self.extractor.save_pretrained(folder)

    def prepare(self, content: Content) -> Medium:
        samples = self._samples(content)
        count = self.family.count(samples.shape[0])
        return Medium(
            modality=self.modality,
            tensors=self._features(samples),
            cost=-(-count // self.options.pool),
            extra={"frames": count},
        )

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        alike: dict[tuple[tuple[str, torch.Size], ...], list[int]] = {}
        for number, medium in enumerate(media):
            alike.setdefault(tuple((name, value.shape) for name, value in medium.tensors.items()), []).append(number)
        found: dict[int, Tensor] = {}
        for numbers in alike.values():
            states = self._states([media[number] for number in numbers])  # b t d
            for number, frames in zip(numbers, states, strict=True):
                found[number] = self._pooled(frames[: cast(int, media[number].extra["frames"])])
        self.ran(len(media))
        return [found[number] for number in range(len(media))]

    def _samples(self, content: Content) -> Tensor:
        """The sound as ``n``, once it is found to be one that the tower takes."""
        if content.modality != self.modality or content.tensor.ndim != 2 or not content.tensor.is_floating_point():
            raise ShapeError(
                'an audio encoder takes a sound, floats "c n"',
                got=f"{content.modality}, {content.tensor.dtype} of shape {tuple(content.tensor.shape)}",
            )
        if content.rate is None or content.rate != self.rate:
            raise ModelError(
                f"this tower takes {self.rate:g} samples per second",
                got="samples without a rate" if content.rate is None else f"{content.rate:g}",
                fix="pass its `rate` to AudioModality.decode",
            )
        rate, samples = content.rate, content.tensor.float().mean(0)
        n, least, most = samples.shape[0], self.family.least, self.family.most
        if n < least or (most is not None and n > most):
            window = f"at least {least} samples" if n < least else f"at most {(most or 0) / rate:g} seconds, its window"
            raise DataError(
                f"a sound is too {'short' if n < least else 'long'} for this tower, which takes {window}",
                field="audio",
                got=f"{n} samples at {rate:g} Hz, {n / rate:.4g} s",
                fix="remove the row" if n < least else "say which part with start and end, or cut it",
            )
        return samples

    def _features(self, samples: Tensor) -> dict[str, Tensor]:
        """What the tower takes, of one sound."""
        if isinstance(self.family, Whisper) and self.family.plain and self.options.features == "fused":
            own = self.family.own
            found = log_mel(
                samples[None],
                torch.from_numpy(own.mel_filters),
                n_fft=own.n_fft,
                hop=own.hop_length,
                length=own.n_samples,
            )
            return {"input_features": found[0]}
        made = self.extractor(samples.numpy(), sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        tensors = {name: cast(Tensor, made[name])[0] for name in made if name != "attention_mask"}
        return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}

    def _states(self, media: Sequence[Medium]) -> Tensor:
        """The tower's states of sounds of one shape, ``b t d``."""
        weight = next(self.tower.parameters())
        inputs = {name: torch.stack([medium.tensors[name] for medium in media]) for name in media[0].tensors}
        inputs = {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }
        layer = self.options.layer
        if layer is None:
            return self.family.arrange(self.tower(**inputs).last_hidden_state)
        return self.family.arrange(self.tower(**inputs, output_hidden_states=True).hidden_states[layer])

    def _pooled(self, frames: Tensor) -> Tensor:
        """Averages of ``pool`` frames each, ``m d``; the last one of what is left."""
        if self.options.pool == 1:
            return frames
        pooled = functional.avg_pool1d(rearrange(frames, "t d -> 1 d t"), self.options.pool, ceil_mode=True)
        return rearrange(pooled, "1 d m -> m d")


def _check_layer(family: Family, layer: int | None) -> None:
    if layer is None:
        return
    if not family.layered:
        raise ConfigError("this tower's layers have widths of their own", where="layer", got=layer, fix="leave it out")
    if not -family.depth - 1 <= layer <= family.depth:
        raise ConfigError(
            "this tower has no such layer", where="layer", got=layer, fix=f"0 to {family.depth}, or negative"
        )


# --- what a checkpoint holds -----------------------------------------------------------------------


def _options(options: Mapping[str, object]) -> AudioEncoderOptions:
    try:
        return AudioEncoderOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            "an audio encoder has no such option, or not with this value",
            where=".".join(map(str, first["loc"])),
            got=first["msg"],
            fix=f"its options are {', '.join(AudioEncoderOptions.model_fields)}",
        ) from error


def _fitted(path: str, revision: str | None) -> Family:
    """The family of a tower, with its config and its extractor; nothing of its weights is read."""
    whole = _config(path, revision)
    family = FAMILIES[whole.model_type]
    config = family.part(whole)
    extractor = _extractor(path, revision)
    try:
        return family(config, extractor)
    except AttributeError as error:
        raise ModelError(
            "the feature extractor beside this model is of another kind",
            where=path,
            got=type(extractor).__name__,
            fix="save the checkpoint's own extractor there",
        ) from error


def _config(path: str, revision: str | None) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(path, **_source(path, revision))
    except _FAILURES as error:
        raise _unloadable("configuration", path, error) from error
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"{path!r} is no audio tower that is known",
            got=f"model_type {config.model_type!r}",
            fix=f"one of {', '.join(FAMILIES)}",
        )
    return config


def _extractor(path: str, revision: str | None) -> Extractor:
    try:
        return cast(Extractor, AutoFeatureExtractor.from_pretrained(path, **_source(path, revision)))
    except _FAILURES as error:
        raise _unloadable("feature extractor", path, error) from error


def _tower(path: str, revision: str | None, dtype: torch.dtype, family: Family) -> PreTrainedModel:
    """The tower alone, with all of its weights."""
    try:
        # transformers draws what a checkpoint lacks; it must be the same each time, and none of the caller's numbers
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            tower, found = family.library.from_pretrained(
                path,
                config=family.config,
                dtype=dtype,
                key_mapping=dict(family.names),
                use_safetensors=True,
                output_loading_info=True,
                **_source(path, revision),
            )
    except SafetensorError as error:
        raise CheckpointError(
            "these weights are no safetensors file, whatever they are called",
            where=path,
            got=error,
            fix="download them again; if they are a renamed pickle, convert them where you trust them",
        ) from error
    except _FAILURES as error:
        raise _unloadable("tower", path, error) from error
    # only a training with masks reads it, and checkpoints fine-tuned without them lack it
    missing = {name for name in found["missing_keys"] if name != "masked_spec_embed"}
    if missing or found["mismatched_keys"]:
        names = sorted(map(str, [*missing, *found["mismatched_keys"]]))
        raise ModelError(
            "the checkpoint lacks weights of its own architecture",
            where=path,
            got=f"{len(names)} missing or of another shape: {', '.join(names[:4])}",
            fix="download it again, or correct its config.json",
        )
    return tower.eval()


def _source(path: str, revision: str | None) -> dict[str, object]:
    here = Path(path).is_dir()
    return {"revision": None if here else revision, "local_files_only": here, "trust_remote_code": False}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the report of weights that are of the other part, which is as long as the checkpoint."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _unloadable(what: str, path: str, error: Exception) -> ModelError:
    return ModelError(
        f"the {what} of {path!r} cannot be loaded",
        got=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
        fix="check that the folder is complete: config.json, preprocessor_config.json, and weights as safetensors; "
        "if it is, run `modalign doctor`",
    )
