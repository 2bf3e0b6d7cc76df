"""Checkpoints that read and draw pictures as codes themselves: Janus, Chameleon, Emu3."""
