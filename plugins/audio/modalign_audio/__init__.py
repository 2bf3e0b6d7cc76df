"""The audio plugin: sounds as parts, and the oracle world in tones."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Sounds."""
    register("audio", "modalign_audio.modality:AudioModality", blocks=("audio",), columns=("audio", "audios"))


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in tones."""
    register("audio", "modalign_audio.world:AudioDepiction", modality="audio")


@hookimpl
def register_checks(register: Register) -> None:
    """What reads and resamples sounds."""
    register("soundfile", "modalign_audio.checks:SoundFile")
    register("torchaudio", "modalign_audio.checks:TorchAudio")
