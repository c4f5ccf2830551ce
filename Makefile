# The targets that people and CI use alike.
.PHONY: help methods check format lint test typeset docs audit demo page python wheel bench peers nearest throughput

help:
	@echo "make check   everything CI runs"
	@echo "make format | lint | test | docs | audit | demo"
	@echo "make typeset   tables in LaTeX by pdfTeX, which root installs from Debian's packages where it is missing"
	@echo "make page    pages in a headless Chromium: accessible, nothing cut, with scripts and without (KEEP=folder for pictures)"
	@echo "make wheel | python   build the wheel of the Python package, and test it in an environment of its own"
	@echo "make bench   scoring throughput (RAYON_NUM_THREADS sets threads)"
	@echo "make peers   the same beside torch, numpy, pytorch-ood and scikit-learn (DATA=folder of real features)"
	@echo "make nearest  neighbours beside faiss, mds, vim and pnml beside their multiplications in torch (DATA may be left out)"
	@echo "make throughput DATA=folder of onnx/ and images/   dice features beside a loop over ONNX Runtime"

check: format lint docs audit typeset test demo page python

format:
	cargo fmt --all --check

# The library is also linted and built alone, with the default features that a Rust user gets; the command also without its own.
lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p dice-ood --locked -- -D warnings
	cargo clippy -p dice-cli --no-default-features --locked -- -D warnings

test:
	cargo test --workspace --locked

# The test skips, and says so, where there is no pdfTeX.
typeset:
	@command -v pdflatex >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends texlive-latex-base texlive-latex-recommended >/dev/null; } \
	  || echo "pdflatex is missing and cannot be installed"
	cargo test --workspace --locked --test typeset -- --show-output

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Advisories need their database, which comes from the network; else a copy that an earlier run left serves. Without either they are
# skipped, and CI repeats that in its last lines.
audit:
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check bans licenses sources
	@log=$$(cargo deny --locked check advisories 2>&1) && echo "$$log" || case "$$log" in \
	  *"failed to fetch advisory database"*) \
	    log=$$(cargo deny --locked --offline check advisories 2>&1) && echo "$$log" \
	      && echo "skipped: advisories newer than the local copy of their database, which cannot be fetched" || case "$$log" in \
	      *"failed to get 'FETCH_HEAD'"*) echo "skipped: advisories, as their database cannot be fetched" ;; \
	      *) echo "$$log"; exit 1 ;; esac ;; \
	  *) echo "$$log"; exit 1 ;; esac

# The documentation page of methods is written by the program.
methods:
	cargo run --locked -p dice-cli -- methods --format markdown > docs/METHODS.md

demo:
	cargo run --release --locked -p dice-cli -- demo

# Pages of the demo's data in a real browser, by the rules of axe-core, which npm brings. Where there is no browser or no node, or where the
# package cannot be had, that is said instead.
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))
BROWSER = crates/dice-cli/tests/browser
BROWSER_WORK ?= target/browser
page:
	@if [ -z "$(CHROMIUM)" ]; then echo "skipped: page: there is no Chromium to look at pages with (CHROMIUM names one)"; \
	elif ! command -v node >/dev/null || ! command -v npm >/dev/null; then echo "skipped: page: there is no node with npm to drive a browser"; \
	elif ! { mkdir -p $(BROWSER_WORK) && cp $(BROWSER)/* $(BROWSER_WORK) \
	  && npm ci --prefix $(BROWSER_WORK) --ignore-scripts --no-audit --no-fund --silent; }; then \
	  echo "skipped: page: axe-core, whose rules of accessibility are checked, cannot be had"; \
	else cargo build --profile $(PROFILE) --locked -p dice-cli \
	  && CHROMIUM=$(CHROMIUM) node $(BROWSER_WORK)/check.mjs $$(realpath $(BUILT)/dice) $(KEEP); fi

# The wheel is built by maturin in an environment of its own and shares the release build of the command. Where there is no Python, or
# where packages cannot be had, that is said instead.
PYTHON ?= python3
PROFILE ?= release
BUILT = $${CARGO_TARGET_DIR:-target}/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
PYTHON_WORK ?= target/python
WHEEL_PYTHON = $(PYTHON_WORK)/build/bin/python
PACKAGE = crates/dice-python
wheel:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is missing"; exit 1; }
	@test -x $(WHEEL_PYTHON) || $(PYTHON) -m venv $(PYTHON_WORK)/build
	@$(WHEEL_PYTHON) -m pip install -q --disable-pip-version-check 'maturin>=1.9.4,<2'
	rm -rf $(PYTHON_WORK)/wheels
	$(PYTHON_WORK)/build/bin/maturin build --profile $(PROFILE) --locked -m $(PACKAGE)/Cargo.toml -o $(PYTHON_WORK)/wheels

# Tests run against the installed wheel, in a folder without the sources. Spark, Ray, torch and the libraries that detectors are compared with
# take some gigabytes; each that cannot be had is skipped, and that is said.
python:
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	  echo "skipped: the Python package, as there is no Python 3.10 or newer"; \
	elif ! { $(PYTHON) -m venv $(PYTHON_WORK)/test && $(PYTHON_WORK)/test/bin/pip install -q --disable-pip-version-check \
	  -r $(PACKAGE)/tests/requirements.txt; }; then \
	  echo "skipped: the Python package, as packages that its tests take cannot be had"; \
	else $(PYTHON_WORK)/test/bin/python $(PACKAGE)/tests/optional.py; $(MAKE) --no-print-directory wheel test-wheel; fi

.PHONY: test-wheel
test-wheel:
	cargo build --profile $(PROFILE) --locked -p dice-cli
	$(PYTHON_WORK)/test/bin/pip install -q --disable-pip-version-check --force-reinstall --no-deps $(PYTHON_WORK)/wheels/*.whl
	DICE=$$(realpath $(BUILT)/dice) $(PYTHON_WORK)/test/bin/python -m pytest -q -rs -p no:cacheprovider \
	  -c $(PACKAGE)/pyproject.toml --rootdir $(PACKAGE) $(PACKAGE)/tests
	$(PYTHON_WORK)/test/bin/python -m pytest -q -p no:cacheprovider -c $(PACKAGE)/pyproject.toml --pyargs dice_ood --doctest-modules \
	  --ignore-glob='*/spark.py'
	$(PYTHON_WORK)/test/bin/python -m mypy.stubtest dice_ood._native
	$(PYTHON_WORK)/test/bin/python -m pyright -p $(PACKAGE) --pythonpath $(PYTHON_WORK)/test/bin/python
	PATH=$$(realpath $(PYTHON_WORK)/test/bin):$$PATH pyright --verifytypes dice_ood --ignoreexternal

bench:
	cargo bench --locked -p dice-ood --bench scoring
	cargo bench --locked -p dice-ood --bench sweep

# A virtual environment of its own, as torch is large; the times are the last thing printed.
PEERS ?= target/peers
DATA ?=
peers:
	@test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install -q -r bench/peers/requirements.txt
	$(PEERS)/bin/python bench/peers/compare.py $(if $(DATA),--data $(DATA))

nearest:
	@test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install -q -r bench/peers/requirements.txt
	$(PEERS)/bin/python bench/peers/nearest.py $(if $(DATA),--data $(DATA))

throughput:
	@test -n "$(DATA)" || { echo "DATA=folder of onnx/ and images/ is missing"; exit 1; }
	@test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install -q -r bench/peers/throughput.txt
	$(PEERS)/bin/python bench/peers/throughput.py --data $(DATA)
