# PyTorch: one process, several on this machine, or a job for Slurm.
# How many processes share a training, on this machine; docs/distributed.md has more machines.
RANKS ?=
TORCHRUN = OMP_NUM_THREADS=1 $(PY) -m torch.distributed.run --standalone --nproc-per-node $(call quoted,$(RANKS))
SLURM_ARGS ?=

.PHONY: train slurm verify

train: environment ## train CONFIG and record the run; ARGS="--seed 1 training.num_epochs=5", RANKS=4
	$(if $(RANKS),$(TORCHRUN),$(PY)) train.py --config $(call quoted,$(CONFIG)) $(ARGS)

slurm: environment ## submit a training of CONFIG to Slurm; SLURM_ARGS="--nodes=2 --array=0-4", RANKS=8 on each node
	@command -v sbatch >/dev/null || { echo "error: sbatch not found: make slurm is for a machine" \
	    "that submits to Slurm; make train trains here" >&2; exit 2; }
	TRAIN_PYTHON=$(or $(call quoted,$(TRAIN_PYTHON)),$(PY)) RANKS=$(call quoted,$(RANKS)) sbatch $(SLURM_ARGS) slurm/train.sbatch \
	    --config $(call quoted,$(CONFIG)) $(ARGS)

verify: environment ## execute RUN (default: the newest) again and compare every bit; RANKS=2
	$(PY) -m {{ cookiecutter.__package }} verify $(call quoted,$(RUN)) $(if $(RANKS),--ranks $(call quoted,$(RANKS)))
