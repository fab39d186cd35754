"""An agent's data: a folder of images, an npz, or its part of a named data set."""
