#!/usr/bin/env bash
# The five-minute tour of README.md as a test: three real nodes on free
# loopback ports, the mosquitto clients, and the Go client paho.golang.
# Nodes are killed with SIGKILL while messages are published; then everything
# that was acknowledged must arrive, QoS 2 exactly once, in order.
#
#   scripts/tour.sh [MESSAGES OF EACH QOS, 10000]
#
# It ends only processes that it started, and leaves nothing behind. With
# KEEP=1 the logs and data directories stay.
set -euo pipefail
cd "$(dirname "$0")/.."

count=${1:-10000}
work=$(mktemp -d "${TMPDIR:-/tmp}/quorate-tour.XXXXXX")
names=(n1 n2 n3)
step=""

say() { printf '\n== %s\n' "$*"; step=$*; }
note() { printf '   %s\n' "$*"; }
die() { printf 'tour: %s\n' "$*" >&2; exit 1; }

node_pid() { cat "$work/$1.pid" 2>/dev/null || true; }

# kill9 NODE... ends these nodes, and waits until they are gone.
kill9() {
	local n pid
	for n in "$@"; do
		pid=$(node_pid "$n")
		[[ -n $pid ]] && kill -KILL "$pid" 2>/dev/null || true
	done
	for n in "$@"; do
		pid=$(node_pid "$n")
		while [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null && [[ $(ps -o stat= -p "$pid") != Z* ]]; do
			sleep 0.02
		done
		rm -f "$work/$n.pid"
	done
}

cleanup() {
	local code=$?
	trap - EXIT INT TERM
	kill9 "${names[@]}"
	if [[ $code -ne 0 ]]; then
		for n in "${names[@]}"; do
			[[ -f $work/$n.log ]] && { echo "--- last lines of $n"; tail -n 15 "$work/$n.log"; }
		done
		echo "tour: FAILED in: $step"
	fi
	if [[ ${KEEP:-0} == 1 ]]; then echo "kept: $work"; else rm -rf "$work"; fi
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! command -v mosquitto_sub >/dev/null || ! command -v mosquitto_pub >/dev/null; then
	say "installing mosquitto-clients"
	sudo=""
	[[ $(id -u) -eq 0 ]] || sudo=sudo
	$sudo apt-get update -q && $sudo apt-get install -y -q --no-install-recommends mosquitto-clients
fi

say "building"
go build -o "$work/quorate" ./cmd/quorate
go build -o "$work/tour" ./scripts/tour

declare -A mqtt cluster admin
mapfile -t ports < <("$work/tour" ports 9)
for i in 0 1 2; do
	mqtt[${names[i]}]=${ports[i]}
	cluster[${names[i]}]=127.0.0.1:${ports[i + 3]}
	admin[${names[i]}]=127.0.0.1:${ports[i + 6]}
done
join=${cluster[n1]},${cluster[n2]},${cluster[n3]}

# start NODE... starts nodes on their old data directories, if there are any.
start() {
	local n
	for n in "$@"; do
		"$work/quorate" serve --name "$n" --data "$work/$n" --expect 3 \
			--mqtt "127.0.0.1:${mqtt[$n]}" --cluster "${cluster[$n]}" --join "$join" --admin "${admin[$n]}" \
			>>"$work/$n.log" 2>&1 &
		echo $! >"$work/$n.pid"
		disown # its end is expected, and need not be told
	done
}

# ready NODE... waits until these nodes serve.
ready() {
	local n urls=()
	for n in "$@"; do urls+=("http://${admin[$n]}/readyz"); done
	"$work/tour" ready 60 "${urls[@]}"
}

leader() { "$work/quorate" status --admin "http://${admin[$1]}" --json | "$work/tour" leader; }

say "three nodes"
start "${names[@]}"
ready "${names[@]}"
leader=$(leader n1)
note "ready; the leader is $leader"

say "small steps with the mosquitto clients"
mosquitto_sub -h 127.0.0.1 -p "${mqtt[n1]}" -i phone -c -q 1 -t 'plant/+/temp' -E
note "phone subscribed to plant/+/temp on n1 and left"
mosquitto_pub -h 127.0.0.1 -p "${mqtt[n2]}" -i sensor -q 1 -t plant/7/temp -m 21.5
mosquitto_pub -h 127.0.0.1 -p "${mqtt[n2]}" -i sensor -q 2 -t plant/8/temp -m 22.5
mosquitto_pub -h 127.0.0.1 -p "${mqtt[n2]}" -i sensor -q 1 -r -t plant/7/name -m fern
note "sensor published 21.5 and 22.5, and the retained name fern, on n2"
got=$(mosquitto_sub -h 127.0.0.1 -p "${mqtt[n3]}" -i phone -c -q 1 -t 'plant/+/temp' -C 2 -W 20 -v)
[[ $got == $'plant/7/temp 21.5\nplant/8/temp 22.5' ]] || die "phone got on n3: $got"
note "phone came back on n3 and got both"
got=$(mosquitto_sub -h 127.0.0.1 -p "${mqtt[n1]}" -t plant/7/name -C 1 -W 20)
[[ $got == fern ]] || die "the retained name on n1 is '$got'"
note "the retained name is on n1 too"

# choose sets where the subscriber comes from and goes to, and where the
# publisher is, so that the subscriber does not return to the leader.
choose() {
	sub=n1 pub=n2 back=n3
	if [[ $1 == "$back" ]]; then sub=n2 pub=n3 back=n1; fi
	local n others=()
	for n in "${names[@]}"; do [[ $n != "$pub" ]] && others+=("127.0.0.1:${mqtt[$n]}"); done
	pubs=127.0.0.1:${mqtt[$pub]},${others[0]},${others[1]}
}

say "the leader is killed while $count QoS 1 and $count QoS 2 messages are published"
choose "$leader"
"$work/tour" subscribe -nodes "127.0.0.1:${mqtt[$sub]}" -id office
"$work/tour" publish -nodes "$pubs" -id factory -count "$count" -acked "$work/acked-1" \
	-half "kill -KILL $(node_pid "$leader") && echo 'leader $leader killed with SIGKILL'"
"$work/tour" receive -nodes "127.0.0.1:${mqtt[$back]}" -id office -acked "$work/acked-1"
rm -f "$work/$leader.pid"
start "$leader"
ready "${names[@]}"
note "$leader is back and caught up"

say "all nodes are killed at once while $count QoS 1 and $count QoS 2 messages are published"
choose "$(leader n1)"
"$work/tour" subscribe -nodes "127.0.0.1:${mqtt[$sub]}" -id archive
pids=$(for n in "${names[@]}"; do node_pid "$n"; done | tr '\n' ' ')
# The publisher goes on while the nodes are started again below.
"$work/tour" publish -nodes "$pubs" -id factory2 -count "$count" -acked "$work/acked-2" \
	-half "kill -KILL $pids && echo 'all nodes killed with SIGKILL' && touch '$work/killed'" &
publisher=$!
while [[ ! -f $work/killed ]]; do
	kill -0 "$publisher" 2>/dev/null || die "the publisher ended too early"
	sleep 0.05
done
kill9 "${names[@]}"
start "${names[@]}"
ready "${names[@]}"
note "all nodes are back"
wait "$publisher"
"$work/tour" receive -nodes "127.0.0.1:${mqtt[$back]}" -id archive -acked "$work/acked-2"

say "verdict"
echo "tour: PASSED: nothing acknowledged was lost, QoS 2 came exactly once, all in order"
