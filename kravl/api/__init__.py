"""kravl from code: fit, predict, embed, evaluate, save; and as an estimator of scikit-learn."""
