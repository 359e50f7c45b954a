"""Images and labels: few-shot splits, evaluation sets, loading."""
