# The same locked packages in an image, for clusters that run containers. Once per commit:
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) --tag noise-levels .
# No key, token or result is in it (.dockerignore lets in the code alone): they come when it runs, with
#   --env RAY_AUTH_MODE=token, the token file mounted as .ray/auth_token in the user's home, and AWS rights of the host's role.
FROM python:3.12.11-slim-bookworm

RUN useradd --create-home --uid 1000 study && install --directory --owner study /study
USER study
WORKDIR /study
ENV PATH=/study/.venv/bin:$PATH OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0

COPY --chown=study requirements.lock ./
RUN python -m venv .venv \
    && python -m pip install --no-cache-dir --disable-pip-version-check 'uv==0.13.9' \
    && uv pip install --no-cache --python .venv/bin/python --require-hashes -r requirements.lock

COPY --chown=study pyproject.toml README.md LICENSE ./
COPY --chown=study orchestrator ./orchestrator
COPY --chown=study tasks ./tasks
COPY --chown=study experiments ./experiments
RUN uv pip install --no-cache --python .venv/bin/python --no-deps --editable .

ARG COMMIT=unknown
ENV ORCHESTRATOR_COMMIT=$COMMIT
CMD ["orchestrator", "--help"]
