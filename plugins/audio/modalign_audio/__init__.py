"""The audio plugin: sounds as parts, encoders of sounds, and the oracle world in tones."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Sounds."""
    register("audio", "modalign_audio.modality:AudioModality", blocks=("audio",), columns=("audio", "audios"))


@hookimpl
def register_encoders(register: Register) -> None:
    """The audio towers of transformers."""
    register("audio", "modalign_audio.encoder:AudioEncoder", modality="audio", probe="modalign_audio.testing:probe")


@hookimpl
def register_loaders(register: Register) -> None:
    """Generators of diffusers."""
    register("audio-painters", "modalign_audio.painter:AudioPainterLoader")
    register("audio-pipelines", "modalign_audio.generators.loader:AudioPipelineLoader")


@hookimpl
def register_ops(register: Register) -> None:
    """Whisper's spectrogram."""
    op = "modalign_audio.ops.log_mel"
    register("log_mel", f"{op}:log_mel", reference=f"{op}:reference", probe=f"{op}:probe")


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in tones."""
    register("audio", "modalign_audio.world:AudioDepiction", modality="audio")


@hookimpl
def register_checks(register: Register) -> None:
    """What reads and resamples sounds."""
    register("soundfile", "modalign_audio.checks:SoundFile")
    register("torchaudio", "modalign_audio.checks:TorchAudio")
