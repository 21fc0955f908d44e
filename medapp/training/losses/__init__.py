"""What training makes small, one file a paper or purpose."""
