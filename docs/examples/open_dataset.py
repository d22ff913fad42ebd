import landscape

data = landscape.open_dataset("mnist", "test")  # or "images.npz", "folder@32", "package.module:factory"
few = data.subset(100, seed=0, balanced=True)
print(data.num_classes, tuple(few.images.shape), few.labels.bincount().tolist())
# -> 10 (100, 1, 28, 28) [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
