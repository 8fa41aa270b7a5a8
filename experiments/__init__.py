"""Research scripts, thin: parse, call the library, print a table, write JSON and pictures.

A run is a folder W, the scripts' ``--workdir``:

W/features/        feature store of the training corpus (prepare)
W/config.json      config of the run (train)
W/checkpoints/     orbax checkpoints, config inside (train)
W/metrics.jsonl    one line an epoch (train)
W/evaluation/      feature store of another evaluated corpus (evaluate)
W/results.json     the table (evaluate)
W/figures/         pictures (train, evaluate)
W/show/            indexes, clips, show.json and found.png (show)
W/songbook/, W/harmony-120/    the built-in corpus, another hasher's results (reproduce)
"""
