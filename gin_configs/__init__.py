"""The package's gin files: `models/`, `scenes/` and `quickstart.gin`; values only, no code."""
