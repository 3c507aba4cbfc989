package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type fakeNode struct {
	ready  error
	status Status
	asked  time.Duration // how long Status had
}

func (f *fakeNode) Ready() error { return f.ready }

func (f *fakeNode) Status(ctx context.Context) Status {
	if deadline, ok := ctx.Deadline(); ok {
		f.asked = time.Until(deadline)
	}
	return f.status
}

func (f *fakeNode) Digest() (uint64, uint64) { return 17, 0xabcdef0123456789 }

func newHandler(f *fakeNode, pprof bool) http.Handler {
	registry := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "quorate_test_total", Help: "A test."})
	registry.MustRegister(c)
	c.Add(3)
	return Handler(Config{Node: f, Metrics: registry, Pprof: pprof, Logger: slog.New(slog.DiscardHandler)})
}

func get(t *testing.T, h http.Handler, method, path string) (int, string, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String(), w.Header()
}

func TestEveryPathAnswersAsDocumented(t *testing.T) {
	ready := &fakeNode{status: Status{Leader: "n1", Asked: "n2", Nodes: []Member{
		{Name: "n1", ID: "00000000000000a1", State: StateLeader, Voter: true, Applied: 9, Ready: true, Connections: 2, Sessions: 5},
	}}}
	alone := &fakeNode{ready: errors.New("no leader contact for 3s")}
	for _, tc := range []struct {
		node         *fakeNode
		method, path string
		code         int
		body, kind   string
	}{
		{ready, "GET", "/livez", 200, "alive\n", "text/plain; charset=utf-8"},
		{alone, "GET", "/livez", 200, "alive\n", "text/plain; charset=utf-8"},
		{ready, "GET", "/readyz", 200, "ready\n", "text/plain; charset=utf-8"},
		{ready, "HEAD", "/readyz", 200, "ready\n", "text/plain; charset=utf-8"},
		{alone, "GET", "/readyz", 503, "not ready: no leader contact for 3s\n", "text/plain; charset=utf-8"},
		{ready, "GET", "/digest", 200, "{\n  \"index\": 17,\n  \"digest\": \"abcdef0123456789\"\n}\n", "application/json"},
		{alone, "GET", "/status", 200, "{\n  \"leader\": \"\",\n  \"nodes\": []\n}\n", "application/json"},
		{ready, "GET", "/status", 200, `{
  "leader": "n1",
  "asked": "n2",
  "nodes": [
    {
      "name": "n1",
      "id": "00000000000000a1",
      "state": "leader",
      "voter": true,
      "applied": 9,
      "ready": true,
      "connections": 2,
      "sessions": 5,
      "received": 0,
      "sent": 0
    }
  ]
}
`, "application/json"},
		{ready, "POST", "/readyz", 405, "Method Not Allowed\n", ""},
		{ready, "GET", "/nothing", 404, "404 page not found\n", ""},
		{ready, "GET", "/debug/pprof/", 404, "404 page not found\n", ""},
	} {
		code, body, header := get(t, newHandler(tc.node, false), tc.method, tc.path)
		if code != tc.code || body != tc.body || tc.kind != "" && header.Get("Content-Type") != tc.kind {
			t.Errorf("%s %s: %d %q %v", tc.method, tc.path, code, body, header)
		}
	}
}

func TestMetricsAreInPrometheusFormat(t *testing.T) {
	code, body, _ := get(t, newHandler(&fakeNode{}, false), "GET", "/metrics")
	if code != 200 || !strings.Contains(body, "quorate_test_total 3") {
		t.Errorf("%d %s", code, body)
	}
}

func TestTheProfilerIsServedOnlyWhenAskedFor(t *testing.T) {
	if code, body, _ := get(t, newHandler(&fakeNode{}, true), "GET", "/debug/pprof/"); code != 200 || !strings.Contains(body, "goroutine") {
		t.Errorf("%d %s", code, body)
	}
}

func TestStatusOfPeersIsNotWaitedForLong(t *testing.T) {
	f := &fakeNode{}
	get(t, newHandler(f, false), "GET", "/status")
	if f.asked <= 0 || f.asked > statusTimeout {
		t.Errorf("Status had %v", f.asked)
	}
}

func TestCloseEndsTheListenerAndMayBeCalledTwice(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Start(ln, Config{Node: &fakeNode{}, Metrics: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	resp, err := http.Get("http://" + s.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "ready\n" {
		t.Errorf("body %q", body)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	for range 2 {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("still listening")
	}
}
