"""The demo's task and its assets: what a newcomer's first chain of resources is trained, tuned and measured on."""
