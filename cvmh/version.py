"""The version of cvmh, in one place."""

VERSION = "0.1.0"
