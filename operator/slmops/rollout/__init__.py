"""An EdgeDeployment's rollout as it stands, read from what is observed alone: plan and status both build on it."""
