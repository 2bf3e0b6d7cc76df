"""The text plugin: words, causal language models, and the row formats of preference data in words."""

from modalign.hookspecs import Register, hookimpl


@hookimpl
def register_modalities(register: Register) -> None:
    """Words; a bare string in a row is words."""
    register("text", "modalign_text.modality:TextModality", blocks=("text",), strings=True)


@hookimpl
def register_loaders(register: Register) -> None:
    """Any causal language model that transformers loads."""
    register("causal-lm", "modalign_text.loader:CausalLMLoader", probe="modalign_text.testing:tiny_model")


@hookimpl
def register_backbones(register: Register) -> None:
    """The trunk of a causal language model."""
    register("causal-lm", "modalign_text.backbone:CausalLMBackbone")


@hookimpl
def register_decoders(register: Register) -> None:
    """The language head."""
    register("text", "modalign_text.decoder:TextDecoder", modality="text", kind="token")


@hookimpl
def register_formats(register: Register) -> None:
    """TRL's rows, HH-RLHF dialogues, lists of messages, ms-swift's pairs, and align-anything's."""
    # a dialogue also has the columns of a preference row, so it is asked first; no other two claim the same rows
    register("hh_rlhf", "modalign_text.formats:HHRLHF", priority=10, probe="modalign_text.rows:hh_rlhf")
    # its rows have a prompt and no answers that TRL would know
    register(
        "align_anything",
        "modalign_text.align_anything:AlignAnything",
        priority=10,
        probe="modalign_text.align_anything_sample:t2t",
    )
    register(
        "align_anything_refined",
        "modalign_text.align_anything:Refined",
        priority=10,
        probe="modalign_text.align_anything_sample:refined",
    )
    register("preference", "modalign_text.formats:Preference", probe="modalign_text.rows:preference")
    register("unpaired", "modalign_text.formats:Unpaired", probe="modalign_text.rows:unpaired")
    register(
        "prompt_completion", "modalign_text.formats:PromptCompletion", probe="modalign_text.rows:prompt_completion"
    )
    register("group", "modalign_text.formats:Group", probe="modalign_text.rows:group")
    register("ms_swift", "modalign_text.ms_swift:MsSwift", probe="modalign_text.rows:ms_swift")
    register("messages", "modalign_text.formats:Messages", probe="modalign_text.rows:messages")
    register("prompt_only", "modalign_text.formats:PromptOnly", probe="modalign_text.rows:prompt_only")


@hookimpl
def register_depictions(register: Register) -> None:
    """The oracle world in sentences."""
    register("text", "modalign_text.world:Sentence", modality="text")


@hookimpl
def register_checks(register: Register) -> None:
    """The libraries that language models need."""
    register("transformers", "modalign_text.checks:Transformers")
    register("peft", "modalign_text.checks:Peft")
