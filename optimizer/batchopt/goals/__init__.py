"""What can be best: one file a goal, with its directions, its values, its view for the search, and its words."""
