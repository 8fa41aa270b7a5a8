"""Who still finds a recording when it is degraded: hashers, controls, and classical fingerprints
side by side.
"""
