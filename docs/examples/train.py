import tempfile

import landscape

config = landscape.TrainingConfig(
    model="mlp", model_args={"hidden": [16]}, optimizer="adam", learning_rate=0.001, batch_size=128, epochs=1
)
with tempfile.TemporaryDirectory() as folder:
    result = landscape.train(config, f"{folder}/run")
    print(result.outcome, landscape.load_snapshot(f"{folder}/run").metrics["clean_accuracy"] > 0.8)
# -> completed True
