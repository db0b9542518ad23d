"""The workbench: real servers from packages, the simulated city, the provider simulator, bench. No production role."""
