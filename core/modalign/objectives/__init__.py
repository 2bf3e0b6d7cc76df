"""Objectives: pure functions of scores by role and targets that return a sum and a count."""
