"""The processes. Each is a bounded round that awaits both neighbours."""
