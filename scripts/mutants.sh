#!/usr/bin/env bash
# Positive controls: each mutant is the broker with one rule broken on purpose
# by a build tag, and the named test must fail on it. A test that passes on its
# mutant proves nothing, and fails this script.
#
#   scripts/mutants.sh            all mutants
#   scripts/mutants.sh NAME...    only these
set -euo pipefail
cd "$(dirname "$0")/.."

# Name (its tag is mutant_NAME), the package and the test that must catch it,
# and what it breaks.
mutants=(
	"ack_before_commit   ./scripts/faults/sim  TestAcknowledgedMessagesSurviveACrashOfAllNodesAtAnyMoment   PUBACK before the message is committed (P1)"
	"no_read_index       ./scripts/faults/sim  TestASubscriberThatIsAcknowledgedMissesNothingFromACutOffPublisher  a message off the log is acknowledged without a fresh read index (P2)"
	"no_epoch_check      ./scripts/faults/sim  TestWhatAnOldConnectionLeftBehindIsNotPublishedAgain  commands of an old connection are applied (P4)"
	"cursor_before_ack   ./scripts/faults/sim  TestDeliveriesThatNeverArrivedComeAgainOnAnotherNode the cursor moves when a message is sent, not when it is acknowledged (P1)"
	"early_identifier    ./scripts/faults/sim  TestAnIdentifierIsFreeOnlyWhenItsReleaseIsCommitted  an identifier is free before the command that ends its exchange is committed (P3)"
	"will_by_node        ./scripts/faults/sim  TestWillsFireOnceWhenTheirNodeDies                   the node that holds the connection fires the will (P6)"
)

only=("$@")
survivors=()
ran=0
for line in "${mutants[@]}"; do
	read -r name package test what <<<"$line"
	if [[ ${#only[@]} -gt 0 && " ${only[*]} " != *" $name "* ]]; then continue; fi
	ran=$((ran + 1))
	tag=mutant_$name
	printf '%-20s %s\n' "$name" "$what"
	if ! grep -rqE --include='*.go' "^//go:build .*\b$tag\b" .; then
		echo "  no file has the tag $tag: the breakage is not there"
		survivors+=("$name")
		continue
	fi
	if ! go build -tags "$tag" -o /dev/null ./cmd/quorate; then
		echo "  does not build"
		survivors+=("$name")
		continue
	fi
	listed=$(go test -tags "$tag" -list "^$test\$" "$package" | grep -c "^$test\$" || true)
	if [[ $listed -ne 1 ]]; then
		echo "  $package has no test $test"
		survivors+=("$name")
		continue
	fi
	log=$(mktemp)
	if go test -count=1 -tags "$tag" -run "^$test\$" "$package" >"$log" 2>&1; then
		echo "  SURVIVED: $test passes"
		survivors+=("$name")
	elif ! grep -q -- "^--- FAIL: $test" "$log"; then
		echo "  $test did not fail by itself:"
		tail -n 20 "$log"
		survivors+=("$name")
	else
		echo "  caught by $test"
	fi
	rm -f "$log"
done

if [[ $ran -eq 0 ]]; then
	echo "mutants: no such mutant: ${only[*]}"
	exit 2
fi
if [[ ${#survivors[@]} -gt 0 ]]; then
	echo "mutants: NOT caught: ${survivors[*]}"
	exit 1
fi
echo "mutants: all $ran caught"
