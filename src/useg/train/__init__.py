"""One process of training, from plan to bundle."""
