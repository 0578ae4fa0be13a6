"""How fast the library is, as ratios to plain code that does the same work: `python -m benchmarks`.

Seconds depend on the machine, and on what else it is doing. A ratio of two runs that took turns depends on neither very much, so
every promise here is a ratio, and both sides run in one process, A B A B, on the CPU. What a card or a processor does with
whole training steps, in numbers of its own, is a second table without promises: `python -m benchmarks --training`.

* `timing`: two functions taking turns on the clock.
* `plain`: the other side, a plain re-implementation of the published code's loader and steps.
* `rows`: one function for each row of the table, its sizes and its target.
* `training`: training steps on one device: images a second, share of its rate for matrix products, an epoch, peak memory.
"""
