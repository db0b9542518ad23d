"""The workbench: real servers from packages, the simulated city, the provider simulator, bench. Not a production role."""
