"""edge-agent: how an agent runs any method."""
