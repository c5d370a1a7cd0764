"""Machines made into a Ray cluster: those of a list over ssh, those of a cloud by Ray's own commands."""
