"""Slice and trimap to alpha."""
