# TensorFlow: one process.
.PHONY: train verify

train: environment ## train CONFIG and record the run; ARGS="--seed 1 training.num_epochs=5"
	$(PY) train.py --config $(call quoted,$(CONFIG)) $(ARGS)

verify: environment ## execute RUN (default: the newest) again and compare every bit
	$(PY) -m {{ cookiecutter.__package }} verify $(call quoted,$(RUN))
