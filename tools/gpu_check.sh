#!/bin/bash
# For a machine with an NVIDIA GPU: the tests that need it (that all trials of an optimizer take their steps one way,
# and with which bits, among them), then speeds to paste into docs/performance.md.
#
#     tools/gpu_check.sh            all of it, about ten minutes
#     tools/gpu_check.sh tests      the tests alone
#     tools/gpu_check.sh speeds     the speeds alone
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
part=${1:-all}
failed=0
if [ "$part" != speeds ]; then
    "$python" -m pytest -n 0 -q -m gpu tests || failed=1
    "$python" -m pytest -n 0 -q tests/optimizers/test_torch.py -k triton || failed=1
fi
if [ "$part" != tests ]; then
    "$python" benchmarks/gpu.py || failed=1
fi
[ "$failed" = 0 ] || echo "something failed: see above" >&2
exit "$failed"
