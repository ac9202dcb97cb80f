"""What a lens shows of a model: heatmaps, faults, a runtime monitor, rules, explanations."""
