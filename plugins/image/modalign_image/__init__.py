"""The image plugin: pictures as parts, vision towers, and the oracle world in pictures."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Pictures."""
    register("image", "modalign_image.modality:ImageModality", blocks=("image",), columns=("image", "images"))


@hookimpl
def register_encoders(register: Register) -> None:
    """Vision towers of transformers."""
    register("vision", "modalign_image.encoder:VisionEncoder", modality="image", probe="modalign_image.testing:probe")


@hookimpl
def register_loaders(register: Register) -> None:
    """Generators of diffusers."""
    register("image-painters", "modalign_image.painter:ImagePainterLoader")
    register("image-pipelines", "modalign_image.generators.loader:ImagePipelineLoader")


@hookimpl
def register_formats(register: Register) -> None:
    """Pick-a-Pic's rows."""
    register("pick_a_pic", "modalign_image.pick_a_pic:PickAPic", probe="modalign_image.pick_a_pic_sample:pairs")


@hookimpl
def register_ops(register: Register) -> None:
    """8-bit pixels to a tower's patches."""
    op = "modalign_image.ops.patches"
    register("patches", f"{op}:patches", reference=f"{op}:reference", probe=f"{op}:probe")


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in pictures."""
    register("image", "modalign_image.world:ImageDepiction", modality="image")


@hookimpl
def register_checks(register: Register) -> None:
    """What reads and resizes pictures."""
    register("pillow", "modalign_image.checks:Pillow")
    register("torchvision", "modalign_image.checks:TorchVision")
