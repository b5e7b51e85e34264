"""Programs that build on an exported model, to start one's own from."""
