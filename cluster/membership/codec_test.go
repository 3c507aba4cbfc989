package membership

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorate/fsm/command"
)

// The bytes of version 1 must never change.
func TestMetaHasItsGoldenBytesAndIsExtendable(t *testing.T) {
	m := Meta{ServerID: "id", Name: "n1", Addr: "a:1", ClientAddr: "c:2", AdminAddr: "d:3", Incarnation: 7, ClusterHash: 0x0102, Expect: 3, HasLog: true, Voter: true}
	const golden = "\x01\x05\x00\x03\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x00\x07\x02id\x02n1\x03a:1\x03c:2\x03d:3"
	if got := m.Append(nil); string(got) != golden {
		t.Fatalf("got %q", got)
	}
	got, err := ParseMeta([]byte("\x02" + golden[1:] + "later"))
	if diff := cmp.Diff(m, got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	if HashOf("") != 0 || HashOf("x") == 0 || HashOf("x") == HashOf("y") {
		t.Fatal("hash of cluster ids")
	}
}

func TestTheLargestMetaFits(t *testing.T) {
	long := strings.Repeat("x", 1000)
	m := Meta{ServerID: command.NodeID(long), Name: long, Addr: long, ClientAddr: long, AdminAddr: long}
	if n := len(m.Append(nil)); n > metaBytesMax {
		t.Fatalf("%d bytes", n)
	}
}

func TestMessageHasItsGoldenBytes(t *testing.T) {
	m := message{Op: opAsk, OK: true, Fate: fateDead, Expect: 3, Request: 9, ClusterID: "cl", Founder: "a", Target: "t", Reason: "why", Members: []command.NodeID{"a", "b"}}
	const golden = "\x01\x01\x01\x02\x00\x03\x00\x00\x00\x00\x00\x00\x00\x09\x02cl\x01a\x01t\x00\x03why\x02\x01a\x01b"
	if got := m.append(nil); string(got) != golden {
		t.Fatalf("got %q", got)
	}
	got, err := parseMessage([]byte(golden))
	if diff := cmp.Diff(m, got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	for n := range golden {
		if _, err := parseMessage([]byte(golden[:n])); !errors.Is(err, errMessage) && !errors.Is(err, errMeta) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(Meta{ServerID: "id", Name: "n", Addr: "a:1", Expect: 3, Leaving: true}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMeta(b)
		if err != nil || len(m.ServerID) > idBytesMax || len(m.Name) > nameBytesMax || max(len(m.Addr), len(m.ClientAddr), len(m.AdminAddr)) > addrBytesMax {
			return
		}
		again, err := ParseMeta(m.Append(nil))
		if err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(message{Op: opAsk, ClusterID: "c", Members: []command.NodeID{"a"}}.append(nil))
	f.Add(message{Op: opRemoved, Reason: "no"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := parseMessage(m.append(nil))
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}

func TestStateSurvivesInItsFile(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "membership.json")}
	if st, err := loadState(store); err != nil || st.Promise != nil {
		t.Fatalf("empty: %+v, %v", st, err)
	}
	want := state{Version: 1, Promise: &promise{ClusterID: "c", Founder: "a", Members: []command.NodeID{"a", "b"}, Frozen: true}, Known: []Known{{ID: "a", Name: "n1", Addr: "x:1", Incarnation: 4}}}
	for range 2 {
		if err := store.Save(want.encode()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := loadState(store)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	for _, bad := range []string{"{", `{"version":2}`, `{"version":0}`} {
		if err := os.WriteFile(store.Path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadState(store); err == nil {
			t.Fatalf("%s was accepted", bad)
		}
	}
}
