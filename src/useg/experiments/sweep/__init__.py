"""Many runs for one question: settings are drawn, trials run, bad ones stopped early, and what came of it is told."""
