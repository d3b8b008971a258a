# Two commands on a fresh machine: `make smoke` shows the main job, `make test` passes the tests. Both set up
# what they need first (setup.sh), which takes about half a second when there is nothing to do.

# workers of pytest: a boot test uses one core
JOBS := 2
# what mypy checks; the programs of the hooks have no suffix, so they are named
TYPED := tinboot initrd-hooks/stage initrd-hooks/init $(wildcard initrd-hooks/[0-9]*) qemu tests bench

.DEFAULT_GOAL := help
.PHONY: help setup smoke test lint unit bench requirements clean

help:
	@echo 'make smoke          set up, build, boot, verify: the whole line once'
	@echo 'make test           set up, then every check and test, boots included'
	@echo 'make lint           formatting, lint and types'
	@echo 'make unit           the tests that neither boot nor build'
	@echo 'make bench          the measurements, as a table'
	@echo 'make setup          only set up'
	@echo 'make requirements   renew requirements.lock from pyproject.toml'
	@echo 'make clean          remove what was built and fetched (build/)'

setup:
	@./setup.sh

smoke: setup
	@.venv/bin/python3 qemu/smoke.py

test: lint
	.venv/bin/python3 -m pytest -n $(JOBS) --dist worksteal

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --scripts-are-modules $(TYPED)

unit: setup
	.venv/bin/python3 -m pytest -n $(JOBS) -m 'not boot and not build'

bench: setup
	.venv/bin/python3 bench

# uv resolves for every Python and platform at once, which pip does not; it is used for this alone
requirements: setup
	.venv/bin/python3 -I -m venv build/uv
	build/uv/bin/python3 -I -m pip --disable-pip-version-check install --quiet uv
	build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --upgrade \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make requirements' \
		pyproject.toml --output-file requirements.lock

clean:
	rm -rf build
