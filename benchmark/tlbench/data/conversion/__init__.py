"""A hub copy of a task to folders of its stored images, none encoded again."""
