"""What all workload images share: how a run begins and ends, registries, sources, data. Nothing about models."""
