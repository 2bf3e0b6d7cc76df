"""What predictions are worth, as pure functions: agreement, calibration, intervals."""
