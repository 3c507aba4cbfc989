package membership

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quorate/fsm/command"
)

// standings parses "a:voter,n1 b:nonvoter,n2,ready c:new,n3 d:voter,n2,lost": servers with id, role, name and state.
// A server is alive and reachable unless it is lost or silent.
func standings(text string) []standing {
	var out []standing
	for _, word := range strings.Fields(text) {
		id, rest, _ := strings.Cut(word, ":")
		parts := strings.Split(rest, ",")
		s := standing{id: command.NodeID(id), name: parts[1], addr: "addr-" + id, alive: true, reachable: true}
		switch parts[0] {
		case "voter":
			s.inConfig, s.voter = true, true
		case "nonvoter":
			s.inConfig = true
		case "new":
			s.joinable, s.reachable = true, false
		}
		for _, p := range parts[2:] {
			switch p {
			case "ready":
				s.ready = true
			case "leaving":
				s.leaving = true
			case "silent": // unreachable, but not for long
				s.alive, s.reachable, s.lost = false, false, time.Second
			case "lost":
				s.alive, s.reachable, s.lost = false, false, time.Hour
			case "log":
				s.joinable = false
			}
		}
		out = append(out, s)
	}
	return out
}

func TestPlan(t *testing.T) {
	cfg := Default()
	for _, c := range []struct{ name, at, want string }{
		{"nothing to do", "a:voter,n1 b:voter,n2 c:voter,n3", "nothing"},
		{"a new server becomes a non-voter", "a:voter,n1 b:new,n2", "add non-voter b"},
		{"a second voter of two is of no use", "a:voter,n1 b:nonvoter,n2,ready", "nothing"},
		{"two more make three", "a:voter,n1 b:nonvoter,n2,ready c:nonvoter,n3,ready", "promote b"},
		{"a second voter on the way to three", "a:voter,n1 b:voter,n2 c:nonvoter,n3,ready", "promote c"},
		{"a server that lags gets no vote", "a:voter,n1 b:voter,n2 c:nonvoter,n3", "nothing"},
		{"a server that leaves gets no vote", "a:voter,n1 b:voter,n2 c:nonvoter,n3,ready,leaving", "nothing"},
		{"three voters stay three with one more", "a:voter,n1 b:voter,n2 c:voter,n3 d:nonvoter,n4,ready", "nothing"},
		{"five voters are enough", "a:voter,n1 b:voter,n2 c:voter,n3 d:voter,n4 e:voter,n5 f:nonvoter,n6,ready g:nonvoter,n7,ready", "nothing"},
		{"four voters become five", "a:voter,n1 b:voter,n2 c:voter,n3 d:voter,n4 f:nonvoter,n6,ready", "promote f"},
		{"a lost voter is not removed", "a:voter,n1 b:voter,n2 c:voter,n3,lost", "nothing"},
		{"a lost voter is not removed for a stranger", "a:voter,n1 b:voter,n2 c:voter,n3,lost d:nonvoter,n4,ready", "nothing"},
		{"its new self is added only once it is long lost", "a:voter,n1 b:voter,n2 c:voter,n3,silent d:new,n3", "nothing"},
		{"its new self is added", "a:voter,n1 b:voter,n2 c:voter,n3,lost d:new,n3", "add non-voter d"},
		{"and must catch up first", "a:voter,n1 b:voter,n2 c:voter,n3,lost d:nonvoter,n3", "nothing"},
		{"then the lost one goes", "a:voter,n1 b:voter,n2 c:voter,n3,lost d:nonvoter,n3,ready", "remove c"},
		{"then it gets the vote", "a:voter,n1 b:voter,n2 d:nonvoter,n3,ready", "promote d"},
		{"not while the others are no majority", "a:voter,n1 b:voter,n2,silent c:voter,n3,lost d:nonvoter,n3,ready", "nothing"},
		{"not while the old one is reached", "a:voter,n1 b:voter,n2 c:voter,n3 d:nonvoter,n3,ready", "nothing"},
		{"a lost non-voter is replaced at once", "a:voter,n1 c:nonvoter,n3,lost d:nonvoter,n3", "remove c"},
		{"a live name is not given twice", "a:voter,n1 b:voter,n2 d:new,n2", "complain: name d"},
		{"nor to two newcomers", "a:voter,n1 d:new,n2,log e:new,n2 f:new,n2", "add non-voter e"},
		{"a server that was removed is not added", "a:voter,n1 d:new,n4,log", "nothing"},
		{"a server that leaves is not added", "a:voter,n1 d:new,n4,leaving", "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, complaints := plan(standings(c.at), &cfg)
			got := "nothing"
			if next != nil {
				got = fmt.Sprint(next.change, " ", next.id)
			} else if len(complaints) > 0 {
				for subject := range complaints {
					got = "complain: " + subject
				}
			}
			if got != c.want {
				t.Fatalf("got %s, want %s", got, c.want)
			}
		})
	}
}

// Whatever the leader sees, it never removes a voter unless a caught-up server of its name stands ready and the reachable
// rest is a majority, never exceeds the most voters, and comes to rest.
func TestPlanNeverEndangersTheCluster(t *testing.T) {
	cfg := Default()
	rapid.Check(t, func(t *rapid.T) {
		var at []standing
		for i := range rapid.IntRange(1, 9).Draw(t, "servers") {
			s := standing{
				id: command.NodeID(fmt.Sprint("s", i)), name: fmt.Sprint("n", rapid.IntRange(0, 6).Draw(t, "name")),
				alive: rapid.Bool().Draw(t, "alive"), reachable: rapid.Bool().Draw(t, "reachable"), leaving: rapid.Bool().Draw(t, "leaving"),
			}
			switch rapid.IntRange(0, 3).Draw(t, "role") {
			case 0, 1:
				s.inConfig, s.voter = true, i < VotersMax
			case 2:
				s.inConfig, s.ready = true, s.alive && s.reachable
			case 3:
				s.joinable = s.alive
			}
			if !s.alive && !s.reachable && rapid.Bool().Draw(t, "lost") {
				s.lost = time.Hour
			}
			at = append(at, s)
		}
		for step := 0; ; step++ {
			next, _ := plan(at, &cfg)
			if next == nil {
				return
			}
			if step > 3*len(at) {
				t.Fatalf("no rest: %+v", next)
			}
			i := slices.IndexFunc(at, func(s standing) bool { return s.id == next.id })
			switch next.change {
			case addNonvoter:
				at[i].inConfig, at[i].joinable = true, false
			case promote:
				at[i].voter = true
			case remove:
				if at[i].voter && (at[i].reachable || at[i].alive || !majorityWithout(at, next.id)) {
					t.Fatalf("removed %+v of %+v", at[i], at)
				}
				at = slices.Delete(at, i, i+1)
			}
			voters := 0
			for _, s := range at {
				if s.voter {
					voters++
				}
			}
			if voters > VotersMax {
				t.Fatalf("%d voters", voters)
			}
		}
	})
}
