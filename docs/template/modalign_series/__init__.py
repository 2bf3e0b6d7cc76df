"""Series for modalign: lists of numbers in a prompt or a response."""

import modalign


@modalign.hookimpl
def register_modalities(register):
    """Lists of numbers as parts."""
    register(
        "series",
        "modalign_series.modality:SeriesModality",
        blocks=("series",),
        columns=("series",),
        probe="modalign_series.testing:parts",
    )


@modalign.hookimpl
def register_encoders(register):
    """What reads them before a language model."""
    register(
        "patches_of_series",
        "modalign_series.encoder:SeriesEncoder",
        modality="series",
        probe="modalign_series.testing:probe",
    )
