"""The paper's training protocol: single runs and grids of runs, stored and resumable."""
