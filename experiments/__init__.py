"""The paper as data, and the stages that dvc.yaml calls: params -> plan -> store -> results."""
