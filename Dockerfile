# One image for web, worker and client: compose.yaml says which of them a container is.
ARG PYTHON_IMAGE=python:3.14.10-slim-bookworm
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1
WORKDIR /srv

# Before the code, so that a change of the code installs nothing anew.
COPY requirements.lock .
RUN python -m pip install --no-cache-dir --root-user-action=ignore \
    --require-hashes --no-deps --only-binary=:all: -r requirements.lock

COPY app app
COPY telemetry telemetry
COPY workers workers

# A volume that is mounted there becomes this user's too.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/queuehop
ENV QUEUEHOP_STATE_DIR=/var/lib/queuehop

# By number, so that Kubernetes too can tell that it is not root.
USER 10001:10001
