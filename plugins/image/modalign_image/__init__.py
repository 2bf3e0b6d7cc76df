"""The image plugin: pictures as parts, and the oracle world in pictures."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Pictures."""
    register("image", "modalign_image.modality:ImageModality", blocks=("image",), columns=("image", "images"))


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in pictures."""
    register("image", "modalign_image.world:ImageDepiction", modality="image")


@hookimpl
def register_checks(register: Register) -> None:
    """What reads and resizes pictures."""
    register("pillow", "modalign_image.checks:Pillow")
    register("torchvision", "modalign_image.checks:TorchVision")
