"""Language models that read media: checkpoints loaded whole, and language models with encoders put before them."""
