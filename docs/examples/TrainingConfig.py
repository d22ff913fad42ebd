import landscape

config = landscape.TrainingConfig(model="mlp", model_args={"hidden": [16]}, optimizer="adam", learning_rate=0.001)
print(config.batch_size, config.dataset, config.method)
try:
    landscape.TrainingConfig(batch_size=0)
except landscape.LandscapeError as error:
    print(type(error).__name__)
# -> 16 mnist plain
# -> ConfigurationError
