#!/usr/bin/env bash
# 209 refunds by an agent whose process is killed with SIGKILL again and again. How many are paid twice?
#
#   examples/refunds/run.sh [PATH OF MOOR]
#
# The number is that of a published experiment (microsoft/agent-framework#3938), in which a workflow that was resumed
# from its checkpoints repeated 209 of 209. A refund here is a line in the workspace's ledger, written by a command in
# the sandbox; the model's answers are scripted, one refund a turn. Nothing else is: the kills, the journal, the sandbox
# and the commands are real.
set -euo pipefail
cd "$(dirname "$0")/../.."

moor=${1:-}
if [ -z "$moor" ]; then
  cargo build -q -p mooring-cli
  moor=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/moor
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MOOR_HOME=$work/home

python3 - "$work/script.jsonl" <<'PY'
import json, sys
with open(sys.argv[1], "w") as script:
    for n in range(1, 210):
        command = {"cmd": f"echo refund-{n} >> ledger"}
        call = {"type": "function_call", "call_id": f"call_{n}", "name": "exec_command", "arguments": json.dumps(command)}
        script.write(json.dumps([call]) + "\n")
    script.write(json.dumps([{"type": "message", "role": "assistant", "content": "209 refunds handled"}]) + "\n")
PY
cat > "$work/agent.toml" <<TOML
name = "refunds"
model = "script:script.jsonl"
capabilities = ["shell"]
limits = {max_turns = 300}
TOML

"$moor" run --agent "$work/agent.toml" --workspace "$work/ws" --json "Pay the refunds." > /dev/null 2>&1 &
driver=$!
kills=0
while :; do
  # Between 30 and 120 ms: a few refunds are made, and the kill comes at any moment of the next.
  sleep "$(python3 -c 'import random; print(random.uniform(0.03, 0.12))')"
  if kill -9 "$driver" 2>/dev/null; then kills=$((kills + 1)); fi
  wait "$driver" 2>/dev/null || true
  run=$("$moor" runs --json | python3 -c 'import json, sys; rows = [json.loads(l) for l in sys.stdin]; print(rows[0]["id"], rows[0]["status"]) if rows else print("- none")')
  id=${run% *} status=${run#* }
  [ "$status" = completed ] && break
  if [ "$status" = none ]; then
    "$moor" run --agent "$work/agent.toml" --workspace "$work/ws" --json "Pay the refunds." > /dev/null 2>&1 &
  else
    "$moor" resume "$id" --json > /dev/null 2>&1 &
  fi
  driver=$!
done

"$moor" events "$id" --json | python3 -c '
import collections, json, sys
ledger, kills = sys.argv[1], sys.argv[2]
made = collections.Counter(open(ledger).read().split())
told = collections.Counter()
wrong = 0
for line in sys.stdin:
    event = json.loads(line)
    if event["type"] != "tool_completed":
        continue
    told[event["status"]] += 1
    count = made["refund-" + event["call_id"].split("_")[1]]
    wrong += event["status"] == "completed" and count != 1
paid, doubt, all_told = told["completed"], told["outcome_unknown"], sum(told.values())
twice = sum(1 for n in made.values() if n > 1)
print(f"killed {kills} times")
print(f"{all_told} refunds asked for: {paid} known to be paid, {doubt} in doubt, and the model was told so")
print(f"{twice} paid twice, {wrong} recorded otherwise than they were")
sys.exit(1 if wrong or twice or all_told != 209 else 0)
' "$work/ws/ledger" "$kills"
