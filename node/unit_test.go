package node

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"quorate/cluster/consensus"
	"quorate/node/broker"
	"quorate/node/config"
	"quorate/node/listener"
	"quorate/protocol/packet"
)

func TestAnonymousClientsComeInOnLoopbackOrWhenAllowed(t *testing.T) {
	for _, tc := range []struct {
		listener string
		allow    bool
		want     bool
	}{
		{"127.0.0.1:1883", false, true}, {"[::1]:1883", false, true}, {"localhost:1883", false, true},
		{"0.0.0.0:1883", false, false}, {":1883", false, false}, {"10.0.0.1:1883", false, false},
		{"0.0.0.0:1883", true, true}, {"10.0.0.1:1883", true, true},
	} {
		c := config.Default("n1")
		c.MQTT, c.AllowAnonymous = []string{tc.listener}, tc.allow
		identity, err := newPolicy(&c).Authenticate(t.Context(), &broker.Credentials{Username: "bob", Connection: listener.Info{Listener: tc.listener}})
		if tc.want && (err != nil || identity != "bob") {
			t.Errorf("%+v: %q, %v", tc, identity, err)
		}
		var refused *packet.Error
		if !tc.want && (!errors.As(err, &refused) || refused.Reason != packet.NotAuthorized) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

func TestClientsAreSentToAnAddressThatMeansSomethingElsewhere(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, tc := range []struct {
		bound                      string
		advertise, cluster, public string
		want                       string
	}{
		{bound: "127.0.0.1:1883", want: "127.0.0.1:1883"},
		{bound: "127.0.0.1:1883", public: "mqtt.example:1883", want: "mqtt.example:1883"},
		{bound: "0.0.0.0:1883", want: ""},
		{bound: "0.0.0.0:1883", cluster: "10.0.0.1:7946", want: "10.0.0.1:1883"},
		{bound: "[::]:1884", cluster: "0.0.0.0:7946", advertise: "n1.example:7946", want: "n1.example:1884"},
	} {
		c := config.Config{AdvertiseMQTT: tc.public, Advertise: tc.advertise, Cluster: tc.cluster}
		if got, err := clientAddr(&c, []net.Addr{tcp(tc.bound)}); err != nil || got != tc.want {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
	}
}

// Whatever order of the two times the configuration allows, consensus must accept what follows from it.
func TestTheTimingsOfEveryPresetFitTogether(t *testing.T) {
	for _, change := range []func(*config.Config){
		func(*config.Config) {},
		func(c *config.Config) { c.Cluster = "127.0.0.1:7946" },
		func(c *config.Config) {
			c.Cluster, c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLease = "127.0.0.1:7946", 50*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond
			c.LeaderWait, c.ClientClose, c.NodeDown = 50*time.Millisecond, 200*time.Millisecond, 210*time.Millisecond
		},
	} {
		c := config.Default("n1")
		change(&c)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		if err := timings(&c).Validate(); err != nil {
			t.Errorf("%+v: %v", timings(&c), err)
		}
	}
}

func TestLimitsFollowTheConfiguration(t *testing.T) {
	c := config.Default("n1")
	c.MaxQueuedMessages, c.MaxSessionExpiry, c.MaxPacketSize = 17, 90*time.Second, 2*config.MiB
	l := limits(&c)
	if l.MaxQueuedMessages != 17 || l.MaxSessionExpirySeconds != 90 {
		t.Errorf("got %+v", l)
	}
	if b := brokerLimits(&c); b.Client.Reader.MaxPacketBytes != 2<<20 || b.ContactTimeout != 12*time.Second {
		t.Errorf("got %+v", b)
	}
	c.MaxSessionExpiry = 0
	if l := limits(&c); l.MaxSessionExpirySeconds != 0xFFFFFFFF {
		t.Errorf("no bound became %d", l.MaxSessionExpirySeconds)
	}
}

func TestNothingArrivesOnTheNetworkOfASoloNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := (solo{}).Dial(context.Background(), "127.0.0.1:9"); err == nil {
			t.Error("dialled somebody")
		}
		pc, _ := solo{}.ListenPacket("")
		began := time.Now()
		_ = pc.SetReadDeadline(began.Add(time.Second))
		if _, _, err := pc.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		_ = pc.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { _ = pc.Close() })
		if _, _, err := pc.ReadFrom(nil); !errors.Is(err, net.ErrClosed) || time.Since(began) < time.Hour {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		ln, _ := solo{}.Listen("")
		time.AfterFunc(time.Hour, func() { _ = ln.Close() })
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// Names, units and help follow Prometheus' conventions, and no label can grow with the number of clients.
func TestMetricsFollowTheConventions(t *testing.T) {
	c := config.Default("n1")
	c.MQTT, c.Admin = []string{"127.0.0.1:0"}, "off"
	n, err := New(Options{Config: c, Version: "test", OpenStorage: consensus.NewMemoryStorage().Open, OpenBodies: MemoryBodies})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "quorate_") {
			if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	problems, err := promlint.New(strings.NewReader(text.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, m := range metrics() {
		for _, l := range m.labels {
			if !strings.Contains(" version peer cause reason type qos road kind ", " "+l+" ") {
				t.Errorf("%s has the label %s: is it bounded?", m.name, l)
			}
		}
	}
}
