"""Measurements beside the peers; not part of the gate."""
