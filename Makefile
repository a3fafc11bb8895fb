# make demo | make web | make caption IMAGE=dog.jpg | make test | make lint | make types | make train
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/bin/uv
FLICKR8K ?= ../shared/data/flickr8k
GENERAL ?= ../shared/data/general
WEIGHTS ?= ../shared/weights
OUT ?= runs
FUZZ_SECONDS ?= 600
FOLDER ?= $(OUT)/web

.PHONY: setup demo web caption test lint types audit fuzz train

# Everything; the page alone needs less.
setup: $(VENV)/.ready

$(UV):
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet uv

$(VENV)/.ready: pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(RUN) --editable ".[demo,web,train,timm,bulk,ray,onnx,completion,dev]"
	touch $(VENV)/.ready-demo $(VENV)/.ready-web $@

$(VENV)/.ready-demo: pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(RUN) --editable ".[demo]"
	touch $@

$(VENV)/.ready-web: pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(RUN) --editable ".[web]"
	touch $@

demo: $(VENV)/.ready-demo
	$(VENV)/bin/hf-captioner demo

# The page as a folder for any static host; then: python3 -m http.server --directory $(FOLDER)
web: $(VENV)/.ready-web
	$(VENV)/bin/hf-captioner export --web $(FOLDER)

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
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npx --yes --package typescript@5.9 tsc --project tests/demo/jsconfig.json

# Known vulnerabilities in what is installed; asks the network, which the tests do not.
audit: setup
	$(VENV)/bin/uv tool run pip-audit --strict --skip-editable --path $(VENV)/lib/python3*/site-packages

# Every reader of strangers' files, FUZZ_SECONDS each; stops at the first finding. Atheris runs on Linux.
fuzz: setup
	$(UV) pip install --quiet --python $(RUN) --group fuzz
	for target in config tokenizer table tar card image; do \
		OMP_NUM_THREADS=1 $(RUN) -m tests.fuzz $$target $(FUZZ_SECONDS) || exit 1; done

BOTH := $(FLICKR8K) $(GENERAL) --dataset Flickr8k "General photographs"
TRAIN := $(VENV)/bin/hf-captioner train
FURTHER := $(TRAIN) $(BOTH) --recipe train/recipes/flickr8k_and_general
BETWEEN := $(RUN) -m train.interpolate $(OUT)/flickr8k/best

# Repeats the bundled checkpoint, $(OUT)/best; stop it at any time and start it again, it goes on where it was.
train: setup weights/resnet50.safetensors
	$(TRAIN) $(FLICKR8K) --dataset Flickr8k --recipe train/recipes/flickr8k.yaml --out $(OUT)/flickr8k \
		--backbone weights/resnet50.safetensors --weights-license hf_captioner/checkpoint/LICENSE
	$(FURTHER).yaml --init $(OUT)/flickr8k/best --out $(OUT)/both
	$(FURTHER)_longer.yaml --weights 1 2 --init $(OUT)/both/best --out $(OUT)/longer
	$(BETWEEN) $(OUT)/longer/best --share 0.8 --out $(OUT)/between
	$(FURTHER)_last.yaml --init $(OUT)/between --out $(OUT)/last
	$(BETWEEN) $(OUT)/last/best --share 0.94 --length-penalty 0.8 --out $(OUT)/best
	$(RUN) -m hf_captioner.training.calibrate --data $(BOTH) --model $(OUT)/best --write
	$(RUN) -m hf_captioner.training.occlusion --data $(BOTH) --model $(OUT)/best --write
	$(VENV)/bin/hf-captioner evaluate $(BOTH) --model $(OUT)/best --write-results
	$(RUN) -m hf_captioner.training.report --data $(BOTH) --model $(OUT)/best --out $(OUT)/report.html --write

weights/resnet50.safetensors: | setup
	$(RUN) $(WEIGHTS)/expand.py weights
