# vfm in a container: no root, no network at run time, any user id.
#   docker build -t vfm .                                   CPU
#   docker build -t vfm --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm --network none -v $PWD/studies:/data:ro -v $PWD/out:/out vfm data prepare /data --out /out/prepared --key /out/key
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

ARG TORCH="torch>=2.11,<2.14"
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PIP_OPTIONS=""
ARG EXTRAS=""

# Whatever writes a cache does so below /tmp, which is writable for any user id, also as a tmpfs over a read-only root.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    HF_HOME=/tmp/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    XDG_CACHE_HOME=/tmp/cache \
    USER=vfm

WORKDIR /opt/vfm
COPY pyproject.toml README.md LICENSE ./
COPY domains domains
COPY recipes recipes
COPY vfm_cli vfm_cli

# torch first and by itself: the default index would bring several GB of CUDA packages.
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir ${PIP_OPTIONS} --extra-index-url "${TORCH_INDEX}" "${TORCH}" \
    && /opt/venv/bin/python -m pip install --no-cache-dir ${PIP_OPTIONS} ".${EXTRAS:+[${EXTRAS}]}"

ENV PATH=/opt/venv/bin:$PATH
# A number, so that runAsNonRoot can check it; any other id works as well.
USER 10001
WORKDIR /tmp
ENTRYPOINT ["vfm"]
CMD ["--help"]
