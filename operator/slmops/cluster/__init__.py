"""The only place that talks to the API server: objects and their cache, the client, events and the leader's Lease."""
