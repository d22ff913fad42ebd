"""Models, datasets, losses, and the two constructors of an Objective."""
