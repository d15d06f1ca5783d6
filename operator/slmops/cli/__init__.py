"""Commands for people, which need no cluster: ``slmops convert``."""
