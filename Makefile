# make demo | make test | make caption IMAGE=dog.jpg | make train | make lint | make types
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/bin/uv
DATA ?= ../shared/data/flickr8k
WEIGHTS ?= ../shared/weights
OUT ?= runs/flickr8k
FUZZ_SECONDS ?= 600

.PHONY: setup demo caption test lint types audit fuzz train

# Everything; the page alone needs less.
setup: $(VENV)/.ready

$(UV):
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet uv

$(VENV)/.ready: pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(RUN) --editable ".[demo,train,timm,bulk,ray,completion,dev]"
	touch $(VENV)/.ready-demo $@

$(VENV)/.ready-demo: pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(RUN) --editable ".[demo]"
	touch $@

demo: $(VENV)/.ready-demo
	$(VENV)/bin/hf-captioner demo

caption: $(VENV)/.ready-demo
	@test -n "$(IMAGE)" || { echo "make caption needs an image: make caption IMAGE=dog.jpg" >&2; exit 2; }
	$(VENV)/bin/hf-captioner caption "$(IMAGE)"

# Two files of tests at a time, a thread each: most of a test's time is a process that starts.
test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup
	$(VENV)/bin/mypy

# Known vulnerabilities in what is installed; asks the network, which the tests do not.
audit: setup
	$(VENV)/bin/uv tool run pip-audit --strict --skip-editable --path $(VENV)/lib/python3*/site-packages

# Every reader of strangers' files, FUZZ_SECONDS each; stops at the first finding. Atheris runs on Linux.
fuzz: setup
	$(UV) pip install --quiet --python $(RUN) --group fuzz
	for target in config tokenizer table tar card image; do \
		OMP_NUM_THREADS=1 $(RUN) -m tests.fuzz $$target $(FUZZ_SECONDS) || exit 1; done

# Repeats the bundled checkpoint; stop it at any time and start it again, it goes on where it was.
train: setup weights/resnet50.safetensors
	$(VENV)/bin/hf-captioner train $(DATA) --dataset Flickr8k --out $(OUT) --recipe train/recipes/flickr8k.yaml \
		--backbone weights/resnet50.safetensors --weights-license hf_captioner/checkpoint/LICENSE
	$(RUN) -m hf_captioner.training.report --data $(DATA) --model $(OUT)/best --out $(OUT)/report.html --write

weights/resnet50.safetensors: | setup
	$(RUN) $(WEIGHTS)/expand.py weights
