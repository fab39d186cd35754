"""fed-server: how a server runs any method. Never imports torch."""
