"""What a run writes and reads back: its folder and lock, its metrics, checkpoints that are committed atomically."""
