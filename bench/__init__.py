"""What the operator costs and what the pipeline gives, measured on the local cluster against stated targets."""
