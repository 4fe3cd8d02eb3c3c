"""Fault campaigns: `make soak`. Long, random, and outside `make test`."""
