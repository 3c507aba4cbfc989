package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const twoNodes = `{
  "leader": "%s",
  "cluster": "c1",
  "asked": "n1",
  "nodes": [
    {"name": "n1", "id": "a", "state": "leader", "voter": true, "applied": 17, "ready": true, "connections": 2, "sessions": 5, "address": "127.0.0.1:1883", "received": 10, "sent": 20},
    {"name": "n2", "id": "b", "state": "unreachable", "voter": true, "applied": 0, "ready": false, "reason": "does not answer n1", "connections": 0, "sessions": 0}
  ]
}
`

func statusServer(t *testing.T, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestStatusShowsTheClusterAsATable(t *testing.T) {
	url := statusServer(t, fmt.Sprintf(twoNodes, "n1"))
	got := invoke(t, "", "status", "--admin", url)
	want := outcome{out: `leader: n1   seen by: n1   cluster: c1

NODE  STATE        VOTE  READY  APPLIED  CLIENTS  SESSIONS  IN/S  OUT/S  ADDRESS
n1    leader       yes   yes    17       2        5         0     0      127.0.0.1:1883
n2    unreachable  yes   no     0        0        0         0     0      

not ready
  n2: does not answer n1
`}
	if got != want {
		t.Errorf("got\n%s\nwant\n%s\n%+v", got.out, want.out, got)
	}
}

func TestStatusAsJSONIsWhatTheNodeSays(t *testing.T) {
	body := fmt.Sprintf(twoNodes, "n1")
	url := statusServer(t, body)
	// The address may stand without http://, as it does in the settings of serve.
	for _, admin := range []string{url, url + "/", strings.TrimPrefix(url, "http://")} {
		if got := invoke(t, "", "status", "--json", "--admin", admin); got != (outcome{out: body}) {
			t.Errorf("%s: %+v", admin, got)
		}
	}
}

func TestStatusWithoutALeaderIsAFailure(t *testing.T) {
	got := invoke(t, "", "status", "--json", "--admin", statusServer(t, fmt.Sprintf(twoNodes, "")))
	if got.code != exitFailed {
		t.Errorf("got %+v", got)
	}
}

func TestStatusSaysWhenNobodyUsableAnswers(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for url, want := range map[string]string{
		gone.URL:                    "quorate status: no node answers at " + gone.URL + ": ",
		statusServer(t, "hello"):    "is no admin address of quorate: ",
		statusServer(t, "") + "/v1": "/v1 answered 404 Not Found\n",
	} {
		if got := invoke(t, "", "status", "--admin", url); got.code != exitFailed || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", url, got)
		}
	}
	if got := invoke(t, "", "status", "--jsn"); got.code != exitUsage {
		t.Errorf("got %+v", got)
	}
}

func TestStatusAsksTheAddressThatServeListensOn(t *testing.T) {
	for _, tc := range []struct{ flag, env, want string }{
		{"", "", "http://127.0.0.1:18083"},
		{"", "QUORATE_ADMIN=10.0.0.1:8080", "http://10.0.0.1:8080"},
		{"", "QUORATE_ADMIN=0.0.0.0:8080", "http://127.0.0.1:8080"},
		{"", "QUORATE_ADMIN=off", "http://127.0.0.1:18083"},
		{"https://n1/", "QUORATE_ADMIN=10.0.0.1:8080", "https://n1"},
	} {
		if got := adminURL(tc.flag, []string{"PATH=/bin", tc.env}); got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}
