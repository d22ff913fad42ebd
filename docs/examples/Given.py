import landscape

# A snapshot that names code or files is not followed: the caller repeats their names.
given = landscape.Given(dataset="mnist")
train, test = given.open()
print(len(train.labels), len(test.labels))
snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
print(landscape.load_problem(snapshot, given=given).test.name)
# -> 60000 10000
# -> mnist
