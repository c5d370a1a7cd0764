"""What lasts, whatever it means."""
