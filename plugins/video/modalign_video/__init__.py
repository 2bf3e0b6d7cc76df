"""The video plugin: clips as parts, encoders of clips, and the oracle world in clips."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Clips."""
    register("video", "modalign_video.modality:VideoModality", blocks=("video",), columns=("video", "videos"))


@hookimpl
def register_encoders(register: Register) -> None:
    """Towers of whole clips, and towers of pictures over frames."""
    tried = "modalign_video.testing"
    register("video", "modalign_video.encoder:VideoEncoder", modality="video", probe=f"{tried}:clips")
    register("frames", "modalign_video.frame_encoder:FrameEncoder", modality="video", probe=f"{tried}:frames")


@hookimpl
def register_loaders(register: Register) -> None:
    """Generators of diffusers."""
    register("video-painters", "modalign_video.painter:VideoPainterLoader")
    register("video-pipelines", "modalign_video.generators.loader:VideoPipelineLoader")


@hookimpl
def register_formats(register: Register) -> None:
    """SafeSora's rows."""
    register("safesora", "modalign_video.safesora:Helpfulness", probe="modalign_video.safesora_sample:pairs")
    # the same rows: asked by name only
    register(
        "safesora_harmlessness",
        "modalign_video.safesora:Harmlessness",
        priority=-1,
        probe="modalign_video.safesora_sample:pairs",
    )
    register("safesora_label", "modalign_video.safesora:Labels", probe="modalign_video.safesora_sample:labels")
    register("safesora_prompt", "modalign_video.safesora:Prompts", probe="modalign_video.safesora_sample:prompts")


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in clips."""
    register("video", "modalign_video.world:VideoDepiction", modality="video")


@hookimpl
def register_checks(register: Register) -> None:
    """What decodes clips."""
    register("av", "modalign_video.checks:PyAV")
    register("torchcodec", "modalign_video.checks:TorchCodec")
