"""The four kinds as a user writes them: pydantic models, and the CRDs generated from them. No I/O, no clock."""
