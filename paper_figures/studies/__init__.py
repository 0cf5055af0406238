"""The studies of experiments/studies.yaml as data and figures, from results files alone."""
