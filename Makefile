# Each target makes its own environment: only Python 3.11, make and a package registry are needed.
PYTHON ?= python3
PHOTOS ?= ../shared/data/photos/images
VENV := .venv
PY := $(VENV)/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 1
export KERAS_BACKEND ?= tensorflow
unexport PYTHONDONTWRITEBYTECODE  # each of the tests' processes would compile swins, and each session's the tests, again
# the tests of a marker expression, under a backend; each is in `test` or in `slow`, all in `check` (tests/test_house.py);
# malloc may have huge pages where the kernel gives them to who asks (madvise)
TESTS = GLIBC_TUNABLES=glibc.malloc.hugetlb=1 KERAS_BACKEND=$(1) $(PY) -m pytest -m "$(2)"

.PHONY: demo test slow check lint env lock parity sizes size-rules memory targets bench profile extras notebooks preprocessing tables front docs clean

demo: env  ## convert, prove, evaluate and export the embedded classifier, predict with the other models (2 minutes on 2 cores)
	$(PY) demo/run.py

test: env  ## every part under TensorFlow, the core under JAX and PyTorch; no network
	$(call TESTS,tensorflow,not slow)
	$(call TESTS,jax,backends and core) tests
	$(call TESTS,torch,backends and core) tests

slow: env  ## the other tests: whole documents, full-size models, exports in every precision, several devices
	$(call TESTS,tensorflow,slow) tests
	$(call TESTS,jax,backends and not core) tests
	$(call TESTS,torch,backends and not core) tests

check: env  ## `test` and `slow` in one session a backend: what CI runs after `lint`
	$(call TESTS,torch,backends) tests
	$(call TESTS,jax,backends) tests
	$(call TESTS,tensorflow,slow or not slow)

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --python $(VENV) --quiet

env: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "swins needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(PY) --requirement requirements.txt
	$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	touch $@

lock: env  ## pin what requirements.in asks for
	$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate \
		requirements.in --output-file requirements.txt

parity: env  ## every architecture against timm on perturbed weights -> in1k_eval/parity.csv (about 25 minutes)
	$(PY) in1k_eval/parity.py

sizes: env  ## open sizes against torchvision, fixed ones against timm -> in1k_eval/sizes.csv (about 5 minutes)
	$(PY) in1k_eval/sizes.py

size-rules: env  ## every size rule beside the program that has it -> in1k_eval/size_rules.csv (about 10 minutes)
	$(PY) in1k_eval/size_rules.py

memory: env  ## peak memory of query_chunk and remat -> in1k_eval/memory.csv (about 5 minutes)
	$(PY) in1k_eval/memory.py

targets: env  ## ONNX, LiteRT and OpenVINO beside Keras -> in1k_eval/targets.csv (about 8 minutes)
	$(PY) in1k_eval/targets.py

bench: env  ## us beside timm, KerasHub, tfswin, onnxruntime and OpenVINO -> benchmarks/ (about 35 minutes, quiet)
	test -d benchmarks/.peers || $(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps \
		--target benchmarks/.peers --requirement benchmarks/requirements.txt
	$(PY) benchmarks/run.py

profile: env  ## where the time goes, operation by operation -> benchmarks/profiles.txt (3 minutes)
	$(PY) benchmarks/profiles.py

extras: env  ## size and time of each extra of the wheel, installed anew -> benchmarks/extras.csv (3 minutes, PyPI)
	rm -f dist/*.whl
	$(PY) -m build --quiet --no-isolation --outdir dist .
	$(PY) benchmarks/extras.py dist/*.whl

preprocessing: env  ## our preprocessing against timm's on PHOTOS and as a layer everywhere -> in1k_eval/preprocess*.csv
	$(PY) in1k_eval/preprocessing.py $(PHOTOS)
	$(PY) in1k_eval/preprocess_layer.py $(PHOTOS)

notebooks: env  ## execute the notebooks and keep what they give (about 12 minutes)
	$(PY) notebooks/run.py

tables: env  ## write the generated tables of docs/, benchmarks/ and recipes/
	$(PY) in1k_eval/tables.py

front: env  ## draw the picture at the top of the README from the embedded models -> docs/images/front.png
	$(PY) demo/front.py

docs: env  ## build the site strictly: broken links and public names without docstring fail -> artefacts/site/
	NO_MKDOCS_2_WARNING=1 $(PY) -P -m mkdocs build --strict
	@echo "artefacts/site: $(PY) -m http.server --bind 127.0.0.1 --directory artefacts/site"

clean:
	rm -rf artefacts build dist *.egg-info .pytest_cache .ruff_cache
