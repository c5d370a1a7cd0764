"""Numerics: arrays in, arrays out; no files, no services, no settings objects."""
