import landscape
from landscape.problem.normalisation import Normalisation

options = landscape.ImportOptions(
    model="resnet18",
    model_args={"num_classes": 10},
    normalisation=Normalisation((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),  # applied whenever the run is measured
    dataset="cifar.npz",
    settings={"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 128, "seed": 0},
)
print(options.model, options.order_given)
# -> resnet18 False
