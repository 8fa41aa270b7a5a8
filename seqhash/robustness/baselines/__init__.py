"""The two systems of the paper's background, on the project's own parts: what the learned hash is
judged against.
"""
