#!/bin/bash
# A suite on all nodes of a Slurm allocation, through Ray:
#
#     sbatch tools/slurm_ray.sh SUITE [options of optbench run]
#
# Change what is asked for here, or before the script's name: sbatch --nodes=8 tools/slurm_ray.sh ...
# The environment in which optbench and Ray are installed must be active where sbatch is called.
#SBATCH --job-name=optbench
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -uo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch $0 SUITE [options of optbench run]" >&2; exit 2; }
port=${RAY_PORT:-6379}
nodes=${SLURM_JOB_NUM_NODES:?run me with sbatch}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
cpus=${SLURM_CPUS_PER_TASK:-1}

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port="$port" --num-cpus="$cpus" --block &
ray_head=$!
others=
if [ "$nodes" -gt 1 ]; then
    sleep 5
    srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$head" \
        ray start --address="$head:$port" --num-cpus="$cpus" --block &
    others=$!
fi
# Until every node has joined, at most five minutes; a node that fails later costs its trials a second try.
there=0
for _ in $(seq 60); do
    there=$(python -c "
import ray
ray.init(address='$head:$port', log_to_driver=False, logging_level='error')
print(sum(node['Alive'] for node in ray.nodes()))" 2>/dev/null || echo 0)
    [ "$there" -ge "$nodes" ] && break
    kill -0 "$ray_head" 2>/dev/null || { echo "Ray's head has ended on $head: see above" >&2; exit 1; }
    sleep 5
done
echo "$there of $nodes nodes have joined"

optbench run "$@" --executor ray --ray-address "$head:$port" &
run=$!
# Not INT: what bash starts in the background ignores it.
trap 'kill -TERM "$run" 2>/dev/null' INT TERM # what has ended is stored
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do # the wait was cut short by a signal
    wait "$run"
    code=$?
done
kill "$ray_head" $others 2>/dev/null
exit "$code"
