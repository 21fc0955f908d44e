"""A frame and sparse depths -> a dense depth map."""
