"""What ships with the package: MNIST as HDF5, and stored runs to analyse."""
