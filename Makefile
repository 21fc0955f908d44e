# medapp: `make run` and `make test` do everything on a fresh Debian or Ubuntu machine; see README.md.
PYTHON ?=
export PYTHON
BIN := .venv/bin
# CI and small machines: two test processes would each pay the imports, so one it is
TESTS ?=

.PHONY: setup run test check bench demo format

setup:
	@sh packaging/setup.sh

# The window on the built-in sample; with no display, the same loop headless into build/demo.
run: setup
	@if [ -n "$$DISPLAY" ] || [ -n "$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
	  $(BIN)/medapp --sample; \
	else \
	  echo "no display: running the whole loop headless into build/demo" >&2; \
	  $(BIN)/medapp demo --out build/demo; \
	fi

test: setup
	QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest $(TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/medapp bench canvas
	$(BIN)/medapp bench open

demo: setup
	$(BIN)/medapp demo --out build/demo
