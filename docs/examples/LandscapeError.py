import landscape

try:
    landscape.load_snapshot("no/such/run")
except landscape.LandscapeError as error:  # every error that is raised on purpose
    print(type(error).__name__)
# -> MissingSnapshotError
