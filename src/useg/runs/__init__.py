"""What happened: journals and records."""
