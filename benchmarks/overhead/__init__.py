"""What the wire and the round cost, each beside the same thing with nothing of ours in it."""
