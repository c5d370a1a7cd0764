"""Where data, network and runs meet: train, predict, evaluate, report."""
