"""The video plugin: clips as parts, and the oracle world in clips."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Clips."""
    register("video", "modalign_video.modality:VideoModality", blocks=("video",), columns=("video", "videos"))


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in clips."""
    register("video", "modalign_video.world:VideoDepiction", modality="video")


@hookimpl
def register_checks(register: Register) -> None:
    """What decodes clips."""
    register("av", "modalign_video.checks:PyAV")
    register("torchcodec", "modalign_video.checks:TorchCodec")
