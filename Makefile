# Everything a newcomer needs; see CONTRIBUTING.md. Python 3.11 or newer and pip are enough.
PYTHON ?= python3
RUN := runs/digits
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test lint slow format clean

quickstart: $(INSTALLED)  ## train, evaluate, predict and explain on handwritten digits
	rm -rf $(RUN)
	$(BIN)/focalnet train --out $(RUN)
	$(BIN)/focalnet evaluate $(RUN)
	$(BIN)/focalnet predict $(RUN) --draw $(RUN)/predictions
	$(BIN)/focalnet explain $(RUN) --out $(RUN)/explanation.png
	@echo
	@echo "The report lies in $(CURDIR)/$(RUN)/report.html"
	@echo "Where the network looks: $(CURDIR)/$(RUN)/explanation.png"

test: lint  ## lint, type-check and run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

slow: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist src/*.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
