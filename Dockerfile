# av2tsam on the CPU. Build it with `docker build -t av2tsam .`; see docs/install.md.
FROM python:3.11-slim-bookworm

# System libraries that opencv-python loads.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*

# PyTorch's CPU build first: the default one brings 4.3 GB of CUDA libraries.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY av2tsam av2tsam
COPY av2tsam_cli av2tsam_cli
RUN pip install --no-cache-dir .

ENV AV2TSAM_HOME=/models
VOLUME /models
WORKDIR /data
ENTRYPOINT ["av2tsam"]
