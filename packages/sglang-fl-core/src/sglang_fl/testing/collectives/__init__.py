"""A communicator's collectives between two real processes."""
