"""Opal, a chip that only pretends: its device is torch's CPU."""
