# The targets that people and CI use alike.
.PHONY: help methods check format lint test docs audit demo bench peers nearest throughput

help:
	@echo "make check   everything CI runs"
	@echo "make format | lint | test | docs | audit | demo"
	@echo "make bench   scoring throughput (RAYON_NUM_THREADS sets threads)"
	@echo "make peers   the same beside torch, numpy, pytorch-ood and scikit-learn (DATA=folder of real features)"
	@echo "make nearest  neighbours beside faiss, mds, vim and pnml beside their multiplications in torch (DATA may be left out)"
	@echo "make throughput DATA=folder of onnx/ and images/   dice features beside a loop over ONNX Runtime"

check: format lint docs audit test demo

format:
	cargo fmt --all --check

# The library is also linted and built alone, with the default features that a Rust user gets.
lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p dice-ood --locked -- -D warnings

test:
	cargo test --workspace --locked

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
